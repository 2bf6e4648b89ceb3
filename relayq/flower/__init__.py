"""Celery's dashboard, Flower, shown what relayq knows: jobs, hosts and queues, to look at only.

A nudge is no job, and a worker sends no Celery events. So Flower gets its events from the records
here, and asks no worker anything: it needs no right but to read.
"""
