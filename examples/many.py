"""Queue a hundred commands in one round trip and collect their results."""

from relayq import job

results = job.submit_many([f"echo $(({n} * {n}))" for n in range(100)])
print(sum(int(result.get(timeout=60)) for result in results))
