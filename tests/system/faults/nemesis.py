"""Every fault of the suite at random against a fleet under load, and the invariants at the end.

    python -m tests.system.faults.nemesis --minutes 30 --seed 7

Prints the seed, each fault as it begins, and what was broken; the exit code is 1 if anything was.
The seed fixes which faults come in which order, not what they meet.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis

from relayq import clock
from relayq.errors import RelayqError
from relayq.host.process import Shim
from relayq.model.jobs import ON_LOST
from tests import probing
from tests.system.faults import scene as scenes
from tests.system.faults.blows import asleep, crash, everything_of
from tests.system.faults.journal import Journal, check_invariants, ended
from tests.system.faults.proxy import REPLIES, REQUESTS
from tests.system.faults.races import Race, broken, cancel
from tests.system.faults.scene import Host, Scene

HOSTS = ("one", "two", "three")
#: The longest that a fault lasts: past permit, lease and verdict.
LONGEST = 9.0
#: How long the fleet may take to bring all jobs to their ends, once it is let alone.
_SETTLE = 120.0

Fault = Callable[[Scene, Host, random.Random], None]


def last(chance: random.Random, most: float = LONGEST) -> None:
    """Let a fault last, mostly for short."""
    clock.sleep(most * chance.random() ** 2)


# What happens to broker and network


def kill_broker(scene: Scene, host: Host, chance: random.Random) -> None:
    scene.broker.kill()
    last(chance, 4)
    scene.broker.start()


def hang_broker(scene: Scene, host: Host, chance: random.Random) -> None:
    with scene.broker.hung():
        last(chance)


def disconnect_all(scene: Scene, host: Host, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 5)):
        scene.broker.connection.execute_command(
            "CLIENT", "KILL", "TYPE", chance.choice(["normal", "pubsub"])
        )
        last(chance, 1)


def fill_memory(scene: Scene, host: Host, chance: random.Random) -> None:
    scene.broker.set(maxmemory=1)
    last(chance, 4)
    scene.broker.set(maxmemory=0)


def lose_nudges(scene: Scene, host: Host, chance: random.Random) -> None:
    scene.broker.connection.delete("{rq}:k:any", f"{{rq}}:k:host.{host.name}")


def send_garbage(scene: Scene, host: Host, chance: random.Random) -> None:
    for text in (b"garbage", b"1", b"[]", b"{}", b'{"body": "x"}', b"\xff\xfe", b"null"):
        scene.broker.connection.lpush("{rq}:k:any", text)
        scene.broker.connection.rpush(f"{{rq}}:control:{host.name}", text)


def hold_link(scene: Scene, host: Host, chance: random.Random) -> None:
    with host.link.held(*chance.choice([(), (REQUESTS,), (REPLIES,)])):
        last(chance)


def break_link(scene: Scene, host: Host, chance: random.Random) -> None:
    how: Callable[[], None] = chance.choice(
        [
            host.link.refuse,
            host.link.lose,
            lambda: host.link.lose(REPLIES),
            lambda: host.link.slow(0.2, 0.1),
            lambda: host.link.cut_each(0.4),
            lambda: host.link.limit(3000),
        ]
    )
    how()
    last(chance)
    host.link.heal()


# What happens to hosts and processes


def kill_worker(scene: Scene, host: Host, chance: random.Random) -> None:
    host.end(signal.SIGKILL)
    last(chance)
    host.start(wait=False)


def restart_worker(scene: Scene, host: Host, chance: random.Random) -> None:
    host.end(signal.SIGTERM)
    last(chance, 3)
    host.start(wait=False)


def hang_worker(scene: Scene, host: Host, chance: random.Random) -> None:
    with asleep(host.pid):
        last(chance)


def sleep_host(scene: Scene, host: Host, chance: random.Random) -> None:
    with asleep(*everything_of(host)):
        last(chance)


def crash_host(scene: Scene, host: Host, chance: random.Random) -> None:
    crash(host)
    last(chance)
    host.start(wait=False)


def kill_shim(scene: Scene, host: Host, chance: random.Random) -> None:
    _hit_shim(host, chance, signal.SIGKILL)


def stop_shim(scene: Scene, host: Host, chance: random.Random) -> None:
    _hit_shim(host, chance, signal.SIGSTOP)


def delete_attempt(scene: Scene, host: Host, chance: random.Random) -> None:
    alive = [one for one in host.attempts() if Shim(one).is_alive()]
    if alive:
        shutil.rmtree(chance.choice(alive), ignore_errors=True)


def kill_all_but_jobs(scene: Scene, host: Host, chance: random.Random) -> None:
    shims = [
        facts.shim for facts in map(lambda one: Shim(one).run_facts(), host.attempts()) if facts
    ]
    ours = [pid for pid in everything_of(host) if pid in shims]
    for pid in ours:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    kill_worker(scene, host, chance)


def _hit_shim(host: Host, chance: random.Random, number: int) -> None:
    alive = [Shim(one).run_facts() for one in host.attempts() if Shim(one).is_alive()]
    hit = [facts.shim for facts in alive if facts is not None]
    if hit:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(hit), number)


OUTSIDE: tuple[Fault, ...] = (
    *(kill_broker, hang_broker, disconnect_all, fill_memory, lose_nudges, send_garbage),
    *(hold_link, break_link, break_link),
)
INSIDE: tuple[Fault, ...] = (
    *(kill_worker, restart_worker, hang_worker, sleep_host, crash_host, kill_shim, stop_shim),
    *(delete_attempt, kill_all_but_jobs),
)


class Load:
    """Submits jobs of all sorts, steadily, and cancels some; what is acknowledged is promised."""

    def __init__(self, scene: Scene, journal: Journal, seed: int) -> None:
        self.races: list[Race] = []
        self.unanswered = 0
        self._scene = scene
        self._journal = journal
        self._chance = random.Random(seed)
        self._cancels: list[threading.Thread] = []

    def run(self, over: threading.Event) -> None:
        """Submit until told to stop."""
        while not over.wait(0.4 * self._chance.random()):
            try:
                self._submit()
            except RelayqError:
                self.unanswered += 1
        for thread in self._cancels:
            thread.join()

    def _submit(self) -> None:
        chance = self._chance
        code = chance.choice([0, 0, 0, 1])
        result = self._journal.submit(
            self._scene.job,
            chance.choice([0.0, 0.2, 1.0, 1.0, 5.0]),
            lines=chance.choice([1, 20, 3000]),
            code=code,
            retries=code,
            on_lost=chance.choice(ON_LOST),
            host=chance.choice([None, None, None, *HOSTS]),
            priority=chance.choice([2, 5, 5, 8]),
        )
        if chance.random() < 0.2:
            delay = chance.choice([0.0, 0.2, 4.0]) * chance.random()
            thread = threading.Thread(target=self._cancel, args=(result, delay))
            thread.start()
            self._cancels.append(thread)

    def _cancel(self, result, delay: float) -> None:
        clock.sleep(delay)
        race = cancel(self._scene.store, result)
        if race is not None:
            self.races.append(race)


class Nemesis:
    """Chooses faults by a seed, and does them one after the other until told to stop."""

    def __init__(self, scene: Scene, faults: tuple[Fault, ...], seed: int, *, say) -> None:
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self._scene = scene
        self._faults = faults
        self._chance = random.Random(seed)
        self._say = say
        self._began = clock.boottime()

    def run(self, over: threading.Event) -> None:
        """Do harm until told to stop."""
        while not over.wait(1.5 * self._chance.random()):
            fault = self._chance.choice(self._faults)
            host = self._scene.hosts[self._chance.choice(HOSTS)]
            self._say(f"{clock.boottime() - self._began:7.1f}  {fault.__name__} {host.name}")
            # Nobody but the faults inside ends a worker, and they start it again.
            if self._faults is INSIDE and not host.is_alive:
                self.errors.append(f"I7: the worker of {host.name} died by itself")
                host.start(wait=False)
            try:
                fault(self._scene, host, random.Random(self._chance.random()))
            except redis.RedisError:
                # The other nemesis has the broker down just now.
                continue
            except Exception as error:
                self.errors.append(f"{fault.__name__} broke: {error!r}")
            self.done[fault.__name__] += 1


def run(
    scene: Scene,
    journal: Journal,
    *,
    seconds: float,
    seed: int,
    say: Callable[[str], object] = print,
) -> None:
    """Hurt a fleet under load for so long; then check all that must hold."""
    __tracebackhide__ = True
    say(f"seed {seed}, {seconds:g} s")
    for name in HOSTS:
        if name not in scene.hosts:
            scene.add(name)
    load = Load(scene, journal, seed)
    workers = [
        Nemesis(scene, faults, seed + number, say=say)
        for number, faults in enumerate((OUTSIDE, INSIDE))
    ]
    over = threading.Event()
    threads = [threading.Thread(target=one.run, args=(over,)) for one in (load, *workers)]
    for thread in threads:
        thread.start()
    over.wait(seconds)
    over.set()
    for thread in threads:
        thread.join()
    dead = [host.name for host in scene.hosts.values() if not host.is_alive]
    scene.repair()
    records = ended(scene.store, journal.promises, within=_SETTLE)
    wrong = [f"I7: the worker of {name} died by itself" for name in dead]
    wrong += [error for one in workers for error in one.errors]
    wrong += broken(load.races, records, journal)
    ends = Counter(f"{record.state.value} ({record.reason})" for record in records.values())
    say(f"{len(records)} jobs, {load.unanswered} not acknowledged, {len(load.races)} cancels")
    say(f"ends: {dict(ends)}")
    say(f"faults: {dict(workers[0].done + workers[1].done)}")
    assert not wrong, "\n".join([f"seed {seed}", *wrong])
    check_invariants(journal, scene.job, HOSTS, within=_SETTLE)


def main() -> int:
    """Be the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    options = parser.parse_args()
    binary = os.environ.get("RELAYQ_TEST_REDIS") or shutil.which("redis-server")
    if binary is None:
        parser.error("needs redis-server, or its path in RELAYQ_TEST_REDIS")
    with tempfile.TemporaryDirectory() as directory:
        os.environ.setdefault(probing.SHARED, directory)
        return _tried(Path(binary), Path(directory), options)


def _tried(binary: Path, directory: Path, options: argparse.Namespace) -> int:
    with scenes.scene(binary) as scene:
        try:
            run(
                scene,
                Journal(directory / "journal"),
                seconds=60 * options.minutes,
                seed=options.seed,
            )
        except AssertionError as error:
            print(error)
            for host in scene.hosts.values():
                kept = Path(tempfile.gettempdir(), f"nemesis-{options.seed}-{host.name}.log")
                kept.write_text(host.log)
                print(f"the log of {host.name} is in {kept}")
            return 1
    print("all invariants hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
