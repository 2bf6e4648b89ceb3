"""Find jobs by group, label and name, send one elsewhere, and forget those that have ended."""

from relayq import job

films = job.submit_many(
    [
        {"cmd": f"echo film {n}", "group": "films", "labels": ["night"], "meta": {"part": str(n)}}
        for n in range(1, 4)
    ]
)
for result in films:
    result.wait(timeout=60)
print([result.get() for result in job.select(["films[2-3]"])])
print(len(job.select([], filters={"label": "nig*", "state": "succeeded"})))

later = job.run("echo later", name="later", delay=3600, unique="the nightly one")
again = job.run("echo later", delay=3600, unique="the nightly one")
print(again.id == later.id, again.is_new)

[found] = job.select(["later"])
found.move("any", priority="high")
print(found.record.state, found.record.priority)
found.cancel()

print(job.prune(keep=1, older_than=0))
