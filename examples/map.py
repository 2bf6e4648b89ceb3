"""Run a command for each of many inputs, look at what failed, and run that again."""

from relayq import as_completed, gather, job

squares = job.map("echo $(({} * {}))", range(1, 101))
print(sum(int(text) for text in squares.results(timeout=60)))

once = job.map(
    ["sh", "-c", 'test -e "$1" || { touch "$1"; exit 3; }', "sh", "{}"], ["a.tmp", "b.tmp"]
)
print([(item.input, item.why) for item in once.failed])
print(once.retry_failed().failed)
job.map("rm {}", ["a.tmp", "b.tmp"]).wait(timeout=60)

for item in job.map("echo {1}-{2}", [("x", 1), ("y", 2)], concurrency=1):
    print(item.number, item.stdout, end="")

results = [job.run(f"echo {word}") for word in ("one", "two", "three")]
print(sorted(result.get() for result in as_completed(results, timeout=60)))
print(gather(*results))
