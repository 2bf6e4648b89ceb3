"""The sections of the configuration: what can be set, its default, and what it means.

A key of `config.yml` is a field here: its parser, its default, a sentence. `relayq.config` reads
the layers and puts these together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from relayq import tls
from relayq.hours import hours_text
from relayq.parsing import (
    Parse,
    address,
    alias,
    broker_url,
    choice,
    counts,
    declared_capability,
    duration,
    host_name,
    ip_address,
    label,
    mac_address,
    memory_size,
    number,
    output_size,
    path_map,
    positive,
    size,
    user_name,
    web_url,
    whole,
    word,
    words,
    yes_or_no,
)

_NICENESS = {"normal": 0, "low": 10, "idle": 19}
#: How the host of a job for any host is chosen.
BALANCES = ("pull", "least-loaded", "round-robin", "weighted", "random", "capability-match")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _own_name() -> str:
    short = os.uname().nodename.partition(".")[0].lower()
    return re.sub(r"[^a-z0-9_-]+", "-", short)[:63].strip("-_") or "localhost"


def key(
    parse: Parse, default: Any = MISSING, about: str = "", *, secret: bool = False, **options: Any
) -> Any:
    """Return the field of a key; `about` is its line in the configuration's schema."""
    metadata = {"parse": parse, "about": about, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata, **options)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where Redis is; without any of url, host and port it is a private one on this machine."""

    url: str | None = key(
        broker_url, None, "The broker's URL, instead of host, port and db.", secret=True
    )
    host: str = key(str, "127.0.0.1", "The broker's machine.")
    port: int = key(whole(1, 65_535), 6379, "The broker's port.")
    db: int = key(whole(0), 0, "The number of the database.")
    user: str | None = key(str, None, "The broker's user whose password it is.")
    password: str | None = key(
        str, None, "The broker's password, better kept in password_file.", secret=True
    )
    password_file: Path | None = key(Path, None, "A file with the broker's password.")
    tls: bool = key(yes_or_no, False, "Whether it is spoken to over TLS, its certificate checked.")
    ca_file: Path | None = key(
        Path, None, "Who signs the broker's certificate; else whom this machine trusts anyway."
    )
    was_given: bool = field(default=False, repr=False)

    @property
    def is_configured(self) -> bool:
        """Whether a file or the environment names a broker."""
        return self.was_given or self.url is not None

    @property
    def full_url(self) -> str:
        """The URL with the password."""
        from urllib.parse import quote

        user = quote(self.user or "", safe="")
        secret = f"{user}:{quote(self.password, safe='')}@" if self.password else ""
        if self.url is not None:
            # Each address of a sentinel:// list gets it.
            return self.url.replace("://", f"://{secret}")
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme, query = ("rediss", tls.query(self.ca_file)) if self.tls else ("redis", "")
        return f"{scheme}://{secret}{host}:{self.port}/{self.db}{query}"


@dataclass(frozen=True, slots=True)
class Worker:
    """This machine's worker."""

    name: str = key(
        host_name, about="What the fleet calls this machine.", default_factory=_own_name
    )
    priority: str = key(
        choice(*_NICENESS), "low", "Niceness of the worker and its jobs: normal 0, low 10, idle 19."
    )
    max_concurrent: int = key(whole(1), 2, "Slots: how many jobs run at a time.")
    cpu_threshold: int = key(
        whole(1, 100),
        80,
        "Percent of CPU that others use, above which this machine stands back; 100: never.",
    )
    labels: tuple[str, ...] = key(
        words(label), (), "Words by which jobs may choose this machine, as in --on @heavy."
    )
    capabilities: tuple[str, ...] = key(
        words(declared_capability),
        (),
        "What this machine can do besides what is found; -name takes a found one away.",
    )
    weight: float = key(
        positive(number(0)), 1.0, "Its share of the jobs when the balance is weighted."
    )
    aliases: tuple[str, ...] = key(words(alias), (), "Other names that it goes by.")
    address: str | None = key(
        address, None, "What ssh is to connect to: [user@]address; else the way to the broker."
    )
    resources: Mapping[str, int] = key(
        counts(word),
        about="Named slots that jobs may ask for, such as cuda: 1.",
        default_factory=dict,
    )
    limits: Mapping[str, int] = key(
        counts(word),
        about="How many jobs of a kind may run here at a time.",
        default_factory=dict,
    )
    paths: Mapping[str, str] = key(
        path_map,
        about="What this machine calls a directory of others, such as /Volumes/media: /mnt/media.",
        default_factory=dict,
    )
    cache: int = key(size, 5_000_000_000, "How much of the files that jobs took along is kept.")
    patience: float = key(
        positive(duration), 600.0, "How long a file's transfer may stand still before it fails."
    )
    run_as: str | None = key(
        user_name, None, "Whom its jobs run as, when root starts it; else they run as it does."
    )
    keep_awake: bool = key(yes_or_no, True, "Whether the machine is kept awake while a job runs.")
    drain_on_sleep: bool = key(
        yes_or_no, True, "Whether it takes nothing new once its machine is about to sleep or halt."
    )
    pause: Pause = field(default_factory=lambda: Pause())
    worktrees: Worktrees = field(default_factory=lambda: Worktrees())
    wake: Wake = field(default_factory=lambda: Wake())

    @property
    def niceness(self) -> int:
        """What the priority means to the scheduler of the machine."""
        return _NICENESS[self.priority]


@dataclass(frozen=True, slots=True)
class Pause:
    """When this machine stands back for its owner; model/courtesy.py decides by it."""

    when_active: float | None = key(
        positive(duration), None, "As long after keyboard or mouse were used."
    )
    on_battery: bool = key(yes_or_no, False, "While it runs on its battery.")
    resume_above: int = key(
        whole(0, 100), 60, "Percent of charge above which it works on its battery all the same."
    )
    hours: str | None = key(hours_text, None, "At these hours, such as mon-fri 9-18.")
    temp: float | None = key(positive(number(0)), None, "Above so many degrees Celsius.")
    load: float | None = key(
        positive(number(0)), None, "Above this load for each CPU; jobs aren't frozen for it."
    )
    memory: float | None = key(
        positive(number(0)),
        None,
        "When memory was waited for more percent of the time; jobs aren't frozen for it.",
    )
    gate: str | None = key(str, None, "While this command ends with anything but 0.")
    action: str = key(
        choice("freeze", "none"), "freeze", "What becomes of running jobs: none lets them go on."
    )
    resume_below: int = key(
        whole(0, 100), 60, "Percent of CPU that others use, below which it works again."
    )
    resume_after: float = key(
        positive(duration), 30.0, "How long nothing must speak against it before it works again."
    )
    look: float = key(
        positive(duration), 0.5, "How often it looks while a job runs; else a quarter as often."
    )


@dataclass(frozen=True, slots=True)
class Worktrees:
    """How long the worktrees of ended jobs are kept; their branches stay."""

    keep: float = key(
        positive(duration), 14 * 86_400.0, "How long after its job's end a worktree is kept."
    )
    room: int = key(size, 10_000_000_000, "How much they may take; the oldest go first.")


@dataclass(frozen=True, slots=True)
class Wake:
    """How this machine is woken by another one."""

    mac: str | None = key(mac_address, None, "The hardware address that wakes it.")
    via: tuple[str, ...] = key(
        words(host_name), (), "Hosts of its network that wake it; else any that is online."
    )


@dataclass(frozen=True, slots=True)
class Logging:
    """The worker's own log."""

    level: str = key(
        choice(*_LEVELS, fold=str.upper), "INFO", "The least level that the worker logs."
    )
    file: Path = key(Path, Path("worker.log"), "The worker's own log.")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a job gets when its submitter doesn't say."""

    timeout: float = key(positive(duration), 5 * 3600.0, "The limit of a job's run time.")
    retries: int = key(whole(0), 0, "Further attempts after a failure of the command's own.")
    max_log: int = key(
        size, 1 << 20, "How much of a large output the broker keeps, of its head and its tail."
    )
    memory: int | None = key(
        memory_size, None, "The limit of the memory of a job's processes, none by default."
    )
    processes: int | None = key(
        whole(1), None, "The limit of the number of a job's processes, none by default."
    )
    max_output: int | None = key(
        output_size, None, "The limit of what a job may write, none by default."
    )
    keep_results: float = key(duration, 30 * 86_400.0, "How long ended jobs are kept.")
    keep_jobs: int = key(whole(1), 1_000_000, "How many ended jobs are kept, the newest.")
    grace: float = key(duration, 10.0, "From TERM to KILL.")


@dataclass(frozen=True, slots=True)
class Retry:
    """When an attempt that failed is followed by another."""

    max: int = key(
        whole(0), 3, "Retries of a job whose submitter says when to retry, but not how often."
    )
    base: float = key(positive(duration), 1.0, "The delay before the first retry.")
    cap: float = key(positive(duration), 60.0, "The longest delay before a retry.")
    factor: float = key(number(1), 2.0, "By how much each delay is longer than the one before.")
    jitter: bool = key(yes_or_no, True, "Whether delays are spread over their upper half.")
    crash_limit: int = key(
        whole(1), 3, "Lost attempts, or such as their host couldn't start, before a job is failed."
    )


@dataclass(frozen=True, slots=True)
class Lease:
    """The times of the lease protocol; relayq/README.md has the protocol. Tests scale them."""

    length: float = key(positive(duration), 60.0, "An attempt without a beat is lost after this.")
    beat: float = key(positive(duration), 15.0, "Between two beats of a worker with jobs.")
    idle_beat: float = key(positive(duration), 30.0, "Between two beats of one without.")
    permit: float = key(positive(duration), 45.0, "What an answered beat gives the shims.")
    extend: float = key(positive(duration), 15.0, "What a worker without a broker gives them.")
    park: float = key(positive(duration), 900.0, "How long a planned stop may last.")
    lost_min: float = key(duration, 30.0, "From lost to the verdict, at least.")
    lost_max: float = key(duration, 900.0, "From lost to the verdict, at most.")
    pull: float = key(positive(duration), 5.0, "How often an idle slot claims without a nudge.")
    check: float = key(positive(duration), 2.0, "How often a shim reads its permit.")
    tick: float = key(positive(duration), 5.0, "How often the reaper looks for what is due.")


@dataclass(frozen=True, slots=True)
class Scheduler:
    """How the fleet's jobs are spread."""

    balance: str = key(
        choice(*BALANCES), "pull", "Who gets a job for any host: pull is the first free slot."
    )
    max_running: int = key(whole(0), 0, "How many jobs run at a time in the whole fleet; 0: any.")


@dataclass(frozen=True, slots=True)
class Agents:
    """What holds for all agents; the entries of the single ones are in relayq.agentsections."""

    default: str = key(word, "claude", "The agent of a job that names none.")
    resume_elsewhere_after: float = key(
        positive(duration),
        6 * 3600.0,
        "How long a job waits for the host with its session before it begins anew elsewhere.",
    )


@dataclass(frozen=True, slots=True)
class Serve:
    """The file service, on the broker's machine."""

    start: bool = key(
        yes_or_no, True, "Whether it is started with the private broker of this machine."
    )
    host: str | None = key(ip_address, None, "Where it listens; else where the broker does.")
    port: int | None = key(whole(1, 65_535), None, "Its port; else a free one, kept from then on.")
    url: str | None = key(
        web_url, None, "Where others find it; else at the broker's address as they know that."
    )
    names: tuple[str, ...] = key(
        words(str), (), "Public names by which it is asked; its addresses go anyway."
    )
    quota: int = key(size, 50 * 10**9, "How much its files may take of the disk.")
    keep: float = key(
        positive(duration), 7 * 86_400.0, "How long a file stays that no job needs any more."
    )


@dataclass(frozen=True, slots=True)
class Audit:
    """What is noted for good: of this machine's jobs, and of the fleet's events."""

    keep: float = key(
        positive(duration), 400 * 86_400.0, "How long it stays: by months, and the newest two."
    )
    fleet: bool | None = key(
        yes_or_no, None, "Whether the fleet's events are kept here; else where the broker is."
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """What `hosts:` says of one host, on the host itself and where jobs are submitted."""

    aliases: tuple[str, ...] = key(words(alias), (), "Other names that it goes by.")
    prefer_for: tuple[str, ...] = key(words(word), (), "Kinds whose jobs wait for it first.")
    capabilities: tuple[str, ...] = key(
        words(declared_capability), (), "As worker.capabilities on the host itself."
    )
    weight: float | None = key(positive(number(0)), None, "As worker.weight on the host itself.")
    address: str | None = key(address, None, "What ssh is to connect to.")


#: Section -> its fields. A section inside another one has its name after a dot, and is a field of
#: the other one with a default and without a parser.
SECTIONS: Mapping[str, type] = {
    "broker": Broker,
    "worker": Worker,
    "worker.pause": Pause,
    "worker.wake": Wake,
    "worker.worktrees": Worktrees,
    "logging": Logging,
    "defaults": Defaults,
    "retry": Retry,
    "scheduler": Scheduler,
    "agents": Agents,
    "serve": Serve,
    "audit": Audit,
    "lease": Lease,
}
KEYS: Mapping[str, Field[Any]] = {
    f"{section}.{own.name}": own
    for section, kind in SECTIONS.items()
    for own in fields(kind)
    if own.metadata
}
#: The keys of each entry of `hosts:`.
ENTRY_KEYS: Mapping[str, Field[Any]] = {own.name: own for own in fields(Entry)}


def assembled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections made of the values of their keys, each by its name."""
    made: dict[str, Any] = {}
    # What is inside another section is made first.
    for section in sorted(SECTIONS, key=lambda name: -name.count(".")):
        own = {
            k.name: values[f"{section}.{k.name}"] for k in fields(SECTIONS[section]) if k.metadata
        }
        inner = {
            name.rpartition(".")[2]: made.pop(name)
            for name in list(made)
            if name.rpartition(".")[0] == section
        }
        made[section] = SECTIONS[section](**own, **inner)
    return made
