"""What becomes of a job when something breaks: relayq beside plain Celery and RQ.

Each cell of the table is a system with a Redis, workers and a directory of its own, to which one
thing happens. `python -m benchmarks.faults` prints what was seen.
"""
