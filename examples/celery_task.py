"""Submit a job as a Celery task: the same record, the same guarantees."""

from relayq import job
from relayq.tasks import run_command

record = run_command.delay("echo submitted through Celery")
print(job.fetch(record.id).get(timeout=60))
