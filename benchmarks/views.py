"""What shows the whole fleet, as whole processes, beside `relayq --help`: many hosts, many jobs."""

from __future__ import annotations

import json
import resource
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures
from benchmarks.peers import Relayq
from benchmarks.processes import Redis, python
from relayq import clock
from relayq.dispatch import TEMPLATE
from relayq.model.hosts import queues_of
from relayq.model.jobs import JobState
from relayq.store import Store
from relayq.store.leases import Claim, Registration, Times

_RELAYQ = python("-m", "relayq")
_FLOOR = "relayq --help"
_LEASE = 600.0
_DAYS = 30
_DAY = 86_400
_MOMENT = 0.2
_TOOLS = "git rsync make cmake gcc cargo uv python3 node npm jq ffmpeg docker sqlite3 psql tmux go"
_ENCODERS = "libx264 libx265 libsvtav1 libopus libmp3lame h264_nvenc hevc_nvenc"
_NEEDS = ("ffmpeg", "docker", "cuda", "cargo", "@heavy", "node", "psql")


def views(figures: Figures, redis: Redis, *, rounds: int, hosts: int, jobs: int) -> None:
    """Fill a broker, then run each command once a round."""
    redis.connection.flushall()
    with tempfile.TemporaryDirectory(prefix="relayq-bench-") as directory:
        peer = Relayq(redis.url, Path(directory))
        try:
            full = _Full(peer, hosts)
            full.fill(jobs)
            _measure(figures, peer, full, rounds)
        finally:
            peer.close()


def _measure(figures: Figures, peer: Relayq, full: _Full, rounds: int) -> None:
    shown = {
        _FLOOR: ["--help"],
        "relayq status": ["status"],
        "relayq hosts": ["hosts"],
        "relayq hosts show": ["hosts", "show", full.names[0]],
        "relayq hosts pick --needs ffmpeg": ["hosts", "pick", "--needs", "ffmpeg"],
        "relayq top, one look": ["top"],
        "relayq stats": ["stats"],
        f"relayq stats --since {_DAYS}d": ["stats", "--since", f"{_DAYS}d"],
        "relayq ps": ["ps"],
        "relayq ps --on HOST": ["ps", "--on", full.names[0]],
    }
    what = f"whole process, {len(full.names)} hosts"
    env = peer.environment()
    for _ in range(rounds):
        full.beat()
        taken = {}
        for name, arguments in shown.items():
            began, used = time.perf_counter(), _cpu()
            subprocess.run(
                [*_RELAYQ, *arguments],
                env=env,
                cwd=peer.directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=60,
            )
            taken[name] = (time.perf_counter() - began) * 1000
            figures.add(what, name, "ms", taken[name])
            figures.add("- CPU of it", name, "ms", (_cpu() - used) * 1000)
        for name, milliseconds in taken.items():
            figures.add(f"- of `{_FLOOR}`", name, "times", milliseconds / taken[_FLOOR])


def _cpu() -> float:
    """Return the CPU seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass
class _Full:
    """A fleet that has all there can be, without one worker."""

    peer: Relayq
    count: int
    names: Sequence[str] = ()
    _registered: list[Registration] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = [f"host{number:02d}" for number in range(self.count)]

    @property
    def store(self) -> Store:
        return self.peer.relay.session().store

    def fill(self, jobs: int) -> None:
        """Register the hosts, and bring jobs into every state."""
        job = self.peer.relay.job
        broken, later = job.run("false"), job.run("true", delay=7200)
        key_id = self.peer.relay.session().signer.key_id
        for name in self.names:
            who = Registration(host=name, install=name, boot=clock.boot_id(), session="1")
            slots = 2 + len(self._registered) % 3
            facts = _facts(len(self._registered))
            self.store.hosts.register(
                who, lease=_LEASE, key_id=key_id, slots=slots, version="1.0.0", facts=facts
            )
            self._registered.append(who)
        self.store.hosts.drain(self.names[-1], reason="a new disk")
        broken.cancel()
        self._submit(jobs // 20 * 11, after=[broken.id])
        self._submit(jobs // 5, after=[later.id])
        self._submit(jobs // 20, delay=3600)
        some, parked = jobs // 10, len(self.names) // 10 + 1
        self._submit(some + parked + len(self.names) + 1)
        self._end(some, JobState.SUCCEEDED, at=lambda i: -_DAYS * _DAY * (i + 1) / (some + 1))
        self._end(parked, JobState.NEEDS_HUMAN, at=lambda _: 0.0)
        self._claim_for_good()
        self._lose()
        for need in _NEEDS:
            self._submit(jobs // 100, needs=[need])
        self._submit(jobs // 100, host=self.names[0])
        for result in self._submit(max(2, jobs // 100)):
            result.cancel()

    def beat(self) -> None:
        """Report every host alive."""
        for number, who in enumerate(self._registered):
            load = {"load": number / 10, "cpu": {"own": number, "others": 7}}
            load |= {"memory_free_bytes": 2 << 30, "disk_free_bytes": 90 << 30}
            load |= {"power": {"plugged": False, "percent": 40 + number}} if number % 5 == 0 else {}
            if number % 7 == 3:
                load["courtesy"] = {"state": "frozen", "reason": "others use 93 % of the CPU"}
            self.store.leases.beat(who, [], lease=_LEASE, load=json.dumps(load))

    def _submit(self, count: int, **options: Any) -> Sequence[Any]:
        job = self.peer.relay.job
        several = ({"cmd": f"make part{i}", "retries": 2, **options} for i in range(count))
        return job.submit_many(several)

    def _claim(self, number: int, store: Store, *, lease: float = _LEASE) -> Claim:
        who = self._registered[number % (len(self._registered) - 1)]
        uid = secrets.token_hex(6)
        claim = store.leases.claim(who, queues_of(who.host), uid=uid, lease=lease)
        if not isinstance(claim, Claim):
            raise RuntimeError(f"nothing to claim: {claim}")
        return claim

    def _end(self, count: int, state: JobState, *, at: Callable[[int], float]) -> None:
        """Have jobs end, each so many seconds from now."""
        offset = 0.0
        store = Store(self.store.connection, offset=lambda: offset)
        for i in range(count):
            offset = at(i)
            token = self._claim(i, store).token
            ended = JobState.FAILED if state is JobState.SUCCEEDED and i % 9 == 8 else state
            store.leases.finish(
                token, ended, reason="exit", outcome=b"", template=TEMPLATE, exit_code=0
            )

    def _claim_for_good(self) -> None:
        for number in range(len(self.names)):
            self._claim(number, self.store)

    def _lose(self) -> None:
        """Let one lease run out."""
        times = Times(lease=_MOMENT, lost_min=_LEASE, lost_max=_LEASE, crash_limit=3, gap=_LEASE)
        self._claim(0, self.store, lease=_MOMENT)
        for _ in range(2):
            self.store.leases.tick(times, template=TEMPLATE)
            clock.sleep(2 * _MOMENT)
        self.store.leases.tick(times, template=TEMPLATE)


def _facts(number: int) -> dict[str, Any]:
    """Return as much as a real host says of itself."""
    tools = {name: f"{number % 9}.12.{i}" for i, name in enumerate(_TOOLS.split())}
    encoders = _ENCODERS.split()
    agents = {"claude": {"version": "2.0.58", "logged_in": True}}
    has_card = number % 6 == 0
    capabilities = [*tools, *(f"encoder:{name}" for name in encoders)]
    capabilities += ["cuda", "gpu"] if has_card else []
    return {
        "os": "linux",
        "arch": "x86_64",
        "release": "6.1.0-28-amd64",
        "cpus": 8,
        "cpu_model": "AMD Ryzen 7 5800X 8-Core Processor",
        "model": "Raspberry Pi 5 Model B Rev 1.0" if number % 4 == 0 else "",
        "memory_bytes": 32 << 30,
        "disk_bytes": 500 << 30,
        "python": "3.11.2",
        "hostname": f"host{number:02d}",
        "pid": 4711,
        "tools": tools,
        "encoders": encoders,
        "agents": agents,
        "modules": [],
        "gpus": [{"sort": "cuda", "name": "NVIDIA GeForce RTX 3080"}] if has_card else [],
        "capabilities": [*capabilities, "linux", "x86_64", "kind:run_command", "agent:claude"],
        "labels": ["heavy"] if number % 3 == 0 else [],
        "aliases": [f"alias{number}"],
        "resources": {"cuda": 1, "gpu": 1} if has_card else {},
        "weight": 1.0,
        "address": f"10.0.0.{number}",
        "limits": {},
    }
