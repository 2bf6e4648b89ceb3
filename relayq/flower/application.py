"""Flower with another source, and a door that is closed before any of its pages.

Flower 2.2 itself leaves /metrics and /healthcheck open to whoever reaches the port, and answers to
any name: a page of another origin that has its name resolve to 127.0.0.1 could read them.
"""

from __future__ import annotations

import asyncio
import hmac
from base64 import b64decode
from collections.abc import Iterable
from typing import Any

from flower.app import Flower
from flower.events import Events
from flower.inspector import Inspector
from flower.views import BaseHandler
from tornado.web import RequestHandler

from relayq import clock
from relayq.config import Config
from relayq.flower.events import Shown, told, worker_name
from relayq.flower.feed import Feed, News, inspected
from relayq.store import Store


class Told(Events):  # type: ignore[misc]
    """Flower's memory, filled from the records instead of from Celery's events."""

    def __init__(self, store: Store, config: Config, **options: Any) -> None:
        super().__init__(enable_events=False, **options)
        self._online_within = config.lease.length
        self._feed = Feed(store, config.lease.length, self._hear)
        #: What the other pages show.
        self.news = News()
        self.workers: dict[str, Any] = {}

    def start(self) -> None:
        """Begin to look; Flower's own thread, which waits for Celery's events, isn't started."""
        self._feed.start()
        if self.state_save_timer:
            self.state_save_timer.start()

    def _hear(self, news: News) -> None:
        # The state is the loop's: no other thread may change it.
        self.io_loop.add_callback(self.take, news)

    def take(self, news: News) -> None:
        """Show what was found."""
        self.news = news
        now = clock.now()
        queues = list(news.queues)
        self.workers.clear()
        for host in news.hosts:
            name = worker_name(host.name)
            running = news.running.get(host.name, ())
            self.workers[name] = inspected(host, queues, running)
            self.state.event(
                {
                    "type": "worker-heartbeat" if host.is_online else "worker-offline",
                    "hostname": name,
                    "timestamp": now,
                    "local_received": now,
                    "clock": 0,
                    "pid": 0,
                    # Celery calls it offline after twice that time.
                    "freq": self._online_within / 2,
                    "active": len(running),
                    "processed": host.finished,
                    "loadavg": [host.load] if host.load is not None else [],
                    "sw_ident": "relayq",
                    "sw_ver": host.version,
                    "sw_sys": host.os,
                }
            )
        for record, command in news.jobs:
            task = self.state.tasks.get(record.id)
            shown = None if task is None else Shown(task.state, task.retries or 0)
            for event in told(record, shown, command):
                self.state.event(event)
        self._forget_nobody()

    def _forget_nobody(self) -> None:
        """Leave out the worker that jobs which no host ever had would have."""
        nobody = self.state.workers.pop("", None)
        self.state.counter.pop("", None)
        if nobody is not None:
            for task in self.state.tasks.values():
                if task.worker is nobody:
                    task.worker = None


class Asked(Inspector):  # type: ignore[misc]
    """Answers for the workers, which are never asked."""

    def __init__(self, told: Told) -> None:
        super().__init__(told.io_loop, None, 0)
        self.workers = told.workers

    def inspect(self, workername: str | None = None) -> Any:
        """Return at once: what is known is shown already."""
        done: asyncio.Future[None] = asyncio.Future(loop=self.io_loop.asyncio_loop)
        done.set_result(None)
        return done


class Watching(Flower):  # type: ignore[misc]
    """Flower behind one door: the right name, the right password, or nothing."""

    def __init__(self, told: Told, *, names: Iterable[str], login: str, **options: Any) -> None:
        self._names = frozenset(names)
        self._login = login.encode()
        super().__init__(events=told, **options)
        self.inspector = Asked(told)
        self.told = told

    def update_workers(self, workername: str | None = None) -> Any:
        """Do nothing: the feed does."""
        return self.inspector.inspect(workername)

    def find_handler(self, request: Any, **options: Any) -> Any:
        """Return the page's handler for those who may see any."""
        if request.host.lower() not in self._names:
            return self.get_handler_delegate(request, Refusal, {"status": 421})
        if not self._is_known(request.headers.get("Authorization", "")):
            return self.get_handler_delegate(request, Refusal, {"status": 401})
        return super().find_handler(request, **options)

    def _is_known(self, header: str) -> bool:
        sort, _, credentials = header.partition(" ")
        try:
            said = b64decode(credentials, validate=True)
        except ValueError:
            return False
        return sort.lower() == "basic" and hmac.compare_digest(said, self._login)


class Refusal(RequestHandler):
    """No page at all."""

    def initialize(self, status: int) -> None:
        """Take the status."""
        self._refused_with = status

    def prepare(self) -> None:
        """Answer, whatever was asked."""
        self.set_status(self._refused_with)
        self.set_header("Content-Type", "text/plain")
        if self._refused_with == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="relayq flower"')
        self.finish("refused\n")

    def check_xsrf_cookie(self) -> None:
        """Nothing is done for anybody here."""


class Depths:
    """The lengths of relayq's queues, where Flower would count messages."""

    def __init__(self, told: Told) -> None:
        self._told = told

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return every queue with the jobs that wait in it, and how many hosts serve it."""
        served = [
            queue["name"]
            for worker, facts in self._told.workers.items()
            for queue in facts["active_queues"]
            if self._told.state.workers[worker].alive
        ]
        return [
            {
                "name": name,
                "messages": count,
                "messages_ready": count,
                "messages_unacknowledged": 0,
                "consumers": served.count(name),
            }
            for name, count in sorted(self._told.news.queues.items())
        ]


def show_depths() -> None:
    """Have every page that shows queues ask for ours."""

    def broker_of(page: Any) -> Depths:
        return Depths(page.application.told)

    BaseHandler.get_broker = broker_of
