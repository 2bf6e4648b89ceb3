"""Follow a job's output while it runs, each stream told apart."""

import sys

from relayq import job
from relayq.model.output import STDOUT

result = job.run("for i in 1 2 3; do echo step $i; sleep 0.2; done; echo done >&2", follow=True)
for frame in result.logs(follow=True):
    stream = sys.stdout if frame.channel == STDOUT else sys.stderr
    stream.write(frame.data.decode())
print(result.wait().state)
