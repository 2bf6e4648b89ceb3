"""The Celery tasks: one a kind, of the same name.

A worker calls a task with a job's id, as a nudge to claim. Anybody else's `delay` or `apply_async`
submits a job: `run_command.delay("echo hi")` returns its record, and
`relayq.job.fetch(record.id).get()` its output.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.task import Task

from relayq import clock, embedded, kinds
from relayq import config as configuration
from relayq.app import make_app
from relayq.dispatch import Dispatcher
from relayq.model.jobs import JobRecord, Spec, new_id
from relayq.model.placement import constrain
from relayq.model.retries import policy_fields
from relayq.rotation import signer_of
from relayq.store import connect
from relayq.worker import Duty, Gate

_config = configuration.load()
# Without a configured broker the worker's first step starts the private one and sets its URL.
app: Celery = make_app(
    _config, _config.broker_url or embedded.broker_url(_config) or "redis://127.0.0.1"
)
app.steps["worker"].add(Duty)
app.steps["consumer"].add(Gate)


class KindTask(Task):  # type: ignore[misc]
    """A kind as a Celery task."""

    kind: str
    ignore_result = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> JobRecord:
        """Submit a job of this kind; positional arguments are its payload's fields in order.

        `queue="host.<name>"` chooses the host; Celery's other options have no meaning here and
        are refused.
        """
        from dataclasses import fields

        if getattr(self.app, "node", None) is not None:
            # Only a message from Redis could ask for it, and nobody has signed that.
            raise TypeError("a worker submits no job of its own")
        queue = options.pop("queue", None)
        if refused := sorted(name for name, value in options.items() if value is not None):
            raise TypeError(f"relayq doesn't take Celery's {', '.join(refused)}")
        declared = kinds.find(self.kind)
        names = [f.name for f in fields(declared.kind.Payload)]
        payload = {**dict(zip(names, args or (), strict=False)), **(kwargs or {})}
        read = declared.read_payload(payload)
        host = None if queue in (None, "any") else str(queue).removeprefix("host.")
        config = configuration.load()
        spec = Spec(
            new_id(),
            self.kind,
            payload,
            host=host,
            timeout=config.defaults.timeout,
            accounts=getattr(read, "accounts", ()),
            needs=constrain(needs=getattr(read, "needs", ())).needs,
            signed_at=int(clock.now()),
            **policy_fields(config),
        )
        return _submit(spec)

    def run(self, id: str) -> None:
        """Answer a nudge."""
        queue = self.request.delivery_info.get("routing_key", "any")
        self.app.node.nudged(id, self.kind, queue)


def _submit(spec: Spec) -> JobRecord:
    config = configuration.load()
    url = config.broker_url or embedded.ensure(config, say=lambda _: None)
    store = connect(url)
    try:
        Dispatcher(store, signer_of(config, store)).submit([spec])
        return store.jobs.fetch(spec.id)
    finally:
        store.close()


def _register(kind: str) -> KindTask:
    task = type(kind, (KindTask,), {"name": f"relayq.{kind}", "kind": kind})
    return app.register_task(task())  # type: ignore[no-any-return]


run_command = _register("run_command")
run_batch = _register("run_batch")
run_agent = _register("run_agent")
run_claude = _register("run_claude")
transcode = _register("transcode")
upgrade = _register("upgrade")
transcribe = _register("transcribe")
