"""Run a command on any host, look at its streams and its exit code."""

from relayq import JobFailed, job

print(job.run("echo test").get())

count = job.run(["sh", "-c", "echo out; echo warning >&2; exit 3"])
try:
    count.get(timeout=60)
except JobFailed as error:
    print(f"exit {error.exit_code}: {count.stdout.strip()} / {count.stderr.strip()}")
