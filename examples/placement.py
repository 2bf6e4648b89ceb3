"""Say what a job asks of its host; learn what each host lacks; run one job on each of them."""

from relayq import Unplaceable, job, worker_status

first = job.run("echo done", on="*", strategy="least-loaded")
beside = job.run("echo on the same host", with_job=first, priority="high", expires=60)
print(first.get(timeout=60), beside.get(timeout=60), first.host == beside.host)

# A preference is none: a host that isn't there is waited for by nobody.
print(job.run("echo anywhere", prefer="the-fast-one", overflow=5).get(timeout=60))

for name, host in worker_status()["workers"].items():
    print(f"{name}: {host['slots']} slots; can do {', '.join(host['capabilities'][:5])}")
    print(job.run("echo again", host=name, needs=host["capabilities"][:2]).get(timeout=60))

try:
    job.run("echo never", needs="time-machine", excluded="*")
except Unplaceable as error:
    for name, lacking in error.missing.items():
        print(f"{name} {', '.join(lacking)}")

for result in job.broadcast("uname -sm"):
    print(result.host, result.get(timeout=60))
