"""What relayq costs, beside the bare work and other queues: `python -m benchmarks --help`."""
