"""Write down what is said: `python examples/transcribe.py talk.mp3`; without a file nothing is."""

import sys

from relayq import job

if len(sys.argv) < 2:
    # A host with an engine is needed, and there may be none: this only says what would be queued.
    spec = job.plan("transcribe", audio="/mnt/talk.mp3", model="small", wait_for_host=True)
    print(spec.queue, spec.payload)
else:
    result = job.transcribe(sys.argv[1], model="base", words=True)
    print(result.get())
    for segment in result.transcript.segments:
        print(f"{segment.start:7.2f} {segment.end:7.2f}  {segment.text}")
