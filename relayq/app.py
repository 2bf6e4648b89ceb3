"""The one Celery app, and how it reaches the broker.

Celery's connection is bent in three places, each measured: nudges are taken without acks, a
message that is no nudge is logged and dropped, and the wait between reconnects stays under two
seconds. Nothing of a message reaches Celery but the job's id, the kind and the queue: what it may
say besides (callbacks, chains, an instant to wait for) would be done with this worker's key.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection, Queue

from relayq import clock, kinds
from relayq.celeryconfig import settings
from relayq.config import Config
from relayq.dispatch import message
from relayq.model.hosts import queues_of
from relayq.store import unintroduced

log = logging.getLogger(__name__)

_TASK = "relayq."
_ID = re.compile(r"[0-9a-zA-Z_-]{1,64}")
_QUEUE = re.compile(r"[0-9A-Za-z._-]{1,255}")

_LONGEST_WAIT = 1.5
_QUIETLY = ("without_gossip", "without_mingle", "without_heartbeat")
#: What a message that isn't a nudge raises on its way. kombu counts KeyError as a lost connection.
_GARBAGE = (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError)
#: How long the consumer stands still when Redis refused to give it a nudge; slots still pull.
_REFUSED = 1.0


def nudge_of(payload: Any) -> dict[str, Any]:
    """Return a message made anew from what a nudge says; TypeError for what isn't one."""
    match payload:
        case {
            "body": str(body),
            "content-type": "application/json",
            "headers": {"task": str(task)},
            "properties": {"delivery_info": {"routing_key": str(queue)}},
        }:
            match json.loads(body):
                case [[str(id)], dict(), dict()] if _ID.fullmatch(id) and _QUEUE.fullmatch(queue):
                    kind = task.removeprefix(_TASK)
                    if task.startswith(_TASK) and kind in kinds.names():
                        made: dict[str, Any] = json.loads(message(id, kind, queue))
                        return made
    raise TypeError(f"not a nudge: {payload!r:.200}")


@functools.cache
def _guarded(stock: Any) -> type[Any]:
    """Return the transport `stock` with a channel that garbage can't hurt."""

    class Nudge(stock.Channel.Message):  # type: ignore[misc]
        """A message that was never held back, so there is nothing to acknowledge."""

        def __init__(self, payload: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(nudge_of(payload), *args, **kwargs)

        def ack(self, multiple: bool = False) -> None:
            """Do nothing: kombu would look for a tag that it doesn't hold, and complain."""

        def reject(self, requeue: bool = False) -> None:
            """Do nothing, as for `ack`."""

        requeue = reject

    class NothingHeld(stock.Channel.QoS):  # type: ignore[misc]
        """What is taken without acks is never held, so there is nothing to restore."""

        def restore_visible(self, *args: Any, **kwargs: Any) -> None:
            """Do nothing: the lock for it is a write, which ends a worker when Redis is full."""

    class GuardedChannel(stock.Channel):  # type: ignore[misc]
        """One bad message in a queue ends a stock worker (celery 5.7): here it is dropped."""

        Message = Nudge
        QoS = NothingHeld

        def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
            return {**super()._connparams(asynchronous), **unintroduced()}

        # A stock worker that connects while Redis is out of memory ends in one of these two. What
        # a queue is bound to and how long it is matters to others only: our publisher is a script.

        def _queue_bind(self, *args: Any) -> None:
            try:
                super()._queue_bind(*args)
            except self.ResponseError as error:
                log.warning("can't note what %s is bound to: %s", args[-1], error)

        def _size(self, queue: str) -> int:
            try:
                return int(super()._size(queue))
            except self.ResponseError as error:
                log.debug("can't tell the length of %s: %s", queue, error)
                return 0

        def _brpop_read(self, **options: Any) -> Any:
            try:
                return super()._brpop_read(**options)
            except _GARBAGE as error:
                log.warning("dropped a message that isn't a nudge: %r", error)
                return True
            except self.ResponseError as error:
                # A master that became a replica, a key of another type: it ends a stock worker.
                clock.sleep(_REFUSED)
                raise ConnectionError(f"the broker gives no nudge: {error}") from error

    class GuardedTransport(stock):  # type: ignore[misc]
        """The stock transport with the guarded channel."""

        Channel = GuardedChannel

        def _reject_inbound_message(self, raw_message: Any) -> None:
            """Give back what came when nothing was consumed any more, in one step."""
            given = nudge_of(raw_message)
            for channel in filter(None, self.channels):
                channel._put(given["properties"]["delivery_info"]["routing_key"], given)
                return

    return GuardedTransport


class BrokerConnection(Connection):  # type: ignore[misc]
    """A connection that comes back soon after the broker does."""

    def get_transport_cls(self) -> type[Any]:
        """Return the guarded transport for this URL's scheme."""
        return _guarded(super().get_transport_cls())

    def _ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.update(interval_start=0.2, interval_step=0.3, interval_max=_LONGEST_WAIT)
        return super()._ensure_connection(*args, **kwargs)


class NudgeAMQP(AMQP):  # type: ignore[misc]
    """Consumes without acks: nothing is held, so a lost broker leaves nothing to crash on."""

    Connection = BrokerConnection
    BrokerConnection = BrokerConnection

    def TaskConsumer(self, channel: Any, queues: Any = None, accept: Any = None, **kw: Any) -> Any:  # noqa: N802
        """Return the consumer of nudges."""
        kw["no_ack"] = True
        return super().TaskConsumer(channel, queues=queues, accept=accept, **kw)


class NudgeApp(Celery):  # type: ignore[misc]
    """An app whose workers say nothing to each other, whoever starts them."""

    @functools.cached_property
    def Worker(self) -> Any:  # noqa: N802
        """Return the class of its workers."""
        from celery.apps.worker import Worker

        class Quiet(Worker):  # type: ignore[misc]
            """A worker without Celery's heartbeats: no user of the broker may publish."""

            def prepare_args(self, **options: Any) -> dict[str, Any]:
                """Return the options of `celery worker`, and what isn't optional here."""
                return options | dict.fromkeys(_QUIETLY, True)

        return self.subclass_with_self(Quiet, name="Worker")


def make_app(config: Config, broker_url: str) -> Celery:
    """Return the app; nothing connects yet."""
    app = NudgeApp("relayq", amqp=NudgeAMQP, set_as_current=False)
    app.conf.update(settings(config, broker_url))
    own = queues_of(config.worker.name)
    own += [f"host.{alias}" for alias in config.worker.aliases]
    app.conf.task_queues = [Queue(name, routing_key=name) for name in own]
    return app
