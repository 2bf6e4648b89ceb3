"""Where a job may run: its constraints, the queue that they are, and the choice of a host.

All of it is pure: hosts come as facts, chance and counters as arguments. A queue's name holds its
whole constraint (`any`, `host.pi4`, `needs.cuda=1,ffmpeg,!pi*,on=@heavy|mini`), so that a worker
decides alone whether it serves a queue. How one of several hosts is chosen: model/strategies.py.
What changes by the minute (limits, slots in use, courtesy) is the claim's to check, not ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from relayq.errors import RelayqError, Unplaceable
from relayq.model.hosts import Host
from relayq.model.secrets import is_key, secret_in
from relayq.model.strategies import Strategy, choose, strategy_of
from relayq.parsing import fits

#: A queue's name is part of a Redis key and of each signed spec.
LONGEST_QUEUE = 500
#: How long a job waits for the host that it would rather have, where nobody says it.
OVERFLOW = 20.0
#: What every worker can do: a need for it says nothing, and would only split the queues.
KIND = "kind:"
UNIVERSAL = frozenset({f"{KIND}run_command", f"{KIND}run_batch"})
MEMORY = "memory_bytes"
#: How many hosts a refusal names in its message; it carries what all of them lack.
_NAMED = 5

_HOST = re.compile(r"[a-z0-9*]([a-z0-9*._-]{0,61}[a-z0-9*])?")
_LABEL = re.compile(r"@[a-z0-9_*][a-z0-9._*-]{0,62}")
_NEED = re.compile(r"@?[a-z0-9_][a-z0-9._:+/-]{0,62}")
_RESOURCE = re.compile(r"([a-z][a-z0-9_.-]{0,62})=([1-9]\d{0,17})")
_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}/[a-z0-9][a-z0-9_.-]{0,31}")
_QUEUED_ON, _QUEUED_ACCOUNT, _EXCLUDED, _OR = "on=", "account=", "!", "|"
#: Names of resources that would be read as something else.
_RESERVED = ("on", "account")


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a submitter asks of a job's host; `constrain` makes it of texts, in canonical order.

    `on` are host names, patterns with stars and `@label`, of which one must fit; all `needs`
    must be had, and none of `excluded` may fit. `resources` are what the job takes of its host's.
    `accounts` are those of agents (`claude/default`) that it may use, the first choice first; a
    host must have the agent of one. `prefer` is no constraint: the job waits for that host first,
    `overflow` seconds long.
    """

    on: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    prefer: str | None = None
    overflow: float | None = None
    resources: Mapping[str, int] = field(default_factory=dict)
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What placement asks of a host; `load` is used slots and waiting jobs by slot.

    `is_available` says that it is online and takes new work.
    """

    name: str
    aliases: tuple[str, ...] = ()
    labels: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    resources: Mapping[str, int] = field(default_factory=dict)
    weight: float = 1.0
    load: float = 0.0
    is_available: bool = True
    #: Accounts of agents that aren't logged in there, and why not.
    unfit: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(
        cls, name: str, facts: Mapping[str, Any], *, load: float = 0.0, is_available: bool = True
    ) -> HostFacts:
        """Return what placement asks, of the facts that a worker publishes."""
        resources = {str(key): int(value) for key, value in facts.get("resources", {}).items()}
        if facts.get(MEMORY):
            resources.setdefault(MEMORY, int(facts[MEMORY]))
        return cls(
            name,
            aliases=tuple(facts.get("aliases", ())),
            labels=frozenset(str(label).lower() for label in facts.get("labels", ())),
            capabilities=frozenset(str(one).lower() for one in facts.get("capabilities", ())),
            resources=resources,
            weight=float(facts.get("weight", 1.0)),
            load=load,
            is_available=is_available,
            unfit=dict(facts.get("unfit", {})),
        )


def facts_of(host: Host) -> HostFacts:
    """Return what placement asks of a host, as its worker last reported it."""
    load = (host.active + host.queued) / max(1, host.slots)
    return HostFacts.read(host.name, host.facts, load=load, is_available=host.takes_work)


def own_names(constraints: Constraints, hosts: Sequence[HostFacts]) -> Constraints:
    """Return the constraints with the own name of each host that they name by an alias."""
    known = {host.name for host in hosts}
    own = {alias: host.name for host in hosts for alias in host.aliases if alias not in known}
    return replace(
        constraints,
        on=tuple(own.get(name, name) for name in constraints.on),
        prefer=own.get(constraints.prefer, constraints.prefer) if constraints.prefer else None,
    )


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a job is to wait, and how it widens.

    `host` was chosen early, None where the first free slot takes the job. After `overflow`
    seconds in `queue` it goes to the queue `wide`; both are None where there is nothing wider.
    """

    queue: str
    host: str | None = None
    wide: str | None = None
    overflow: float | None = None


def constrain(
    *,
    on: Iterable[str] | str = (),
    needs: Iterable[str] | str = (),
    excluded: Iterable[str] | str = (),
    prefer: str | None = None,
    overflow: float | None = None,
    resources: Mapping[str, int] | None = None,
    accounts: Iterable[str] = (),
) -> Constraints:
    """Return checked constraints in canonical order; a text may hold several, with commas.

    `any` and `*` among `on` mean any host.
    """
    places = _words("a host", on, _HOST, _LABEL)
    if {"any", "*"} & set(places):
        places = ()
    if prefer is not None:
        prefer = _one_host(prefer)
    if overflow is not None and not 0 <= overflow < float("inf"):
        raise RelayqError(f"an overflow is a number of seconds from 0 on, not {overflow}")
    taken = {}
    for name, count in sorted((resources or {}).items()):
        if not _RESOURCE.fullmatch(f"{name}={count}") or name in _RESERVED:
            raise RelayqError(f"a resource is NAME=N, N from 1 on: {name}={count}")
        taken[name] = count
    made = Constraints(
        on=places,
        needs=tuple(one for one in _words("a capability", needs, _NEED) if one not in UNIVERSAL),
        excluded=_words("a host", excluded, _HOST, _LABEL),
        prefer=prefer,
        overflow=overflow,
        resources=taken,
        accounts=tuple(dict.fromkeys(_account(name) for name in accounts)),
    )
    if len(queue_of(made)) > LONGEST_QUEUE:
        raise RelayqError(
            f"too many constraints: together more than {LONGEST_QUEUE} letters",
            hint="give the hosts a label: relayq hosts label HOST +NAME, then --on @NAME",
        )
    return made


def _words(what: str, texts: Iterable[str] | str, *forms: re.Pattern[str]) -> tuple[str, ...]:
    listed = [texts] if isinstance(texts, str) else texts
    words = {word.strip().lower() for text in listed for word in text.split(",")}
    for word in sorted(words):
        if not any(form.fullmatch(word) for form in forms):
            raise RelayqError(f"{what} can't be {word!r}", hint="relayq hosts")
    return tuple(sorted(words))


def _one_host(text: str) -> str:
    names = _words("a preferred host", text, _HOST)
    if len(names) != 1 or "*" in names[0]:
        raise RelayqError(f"a preferred host is one host's name, not {text!r}")
    return names[0]


def _account(text: str) -> str:
    name = text.strip().lower()
    if not _ACCOUNT.fullmatch(name):
        raise RelayqError(f"an account is AGENT/NAME, such as claude/default, not {text!r}")
    return name


def agent_of(account: str) -> str:
    """Return the agent whose account this is."""
    return account.partition("/")[0]


def queue_of(constraints: Constraints) -> str:
    """Return the widest queue for a job: of all hosts that meet its constraints."""
    tokens = [
        *sorted(set(constraints.needs)),
        *(f"{name}={count}" for name, count in sorted(constraints.resources.items())),
        *([_QUEUED_ACCOUNT + _OR.join(constraints.accounts)] if constraints.accounts else []),
        *(_EXCLUDED + one for one in sorted(set(constraints.excluded))),
    ]
    on = sorted(set(constraints.on))
    if not tokens and not on:
        return "any"
    if not tokens and len(on) == 1 and not on[0].startswith("@") and "*" not in on[0]:
        return f"host.{on[0]}"
    if on:
        tokens.append(_QUEUED_ON + _OR.join(on))
    return "needs." + ",".join(tokens)


@lru_cache(maxsize=4096)
def constraints_of(queue: str) -> Constraints:
    """Return what a queue asks of a host; ValueError for a name that `queue_of` never gives."""
    read = _read(queue)
    if queue_of(read) != queue:
        raise ValueError(f"not the name of a queue: {queue!r}")
    return read


def _read(queue: str) -> Constraints:
    sort, _, text = queue.partition(".")
    if queue == "any":
        return Constraints()
    if sort == "host" and _HOST.fullmatch(text):
        return Constraints(on=(text,))
    on: list[str] = []
    needs, excluded = [], []
    accounts: list[str] = []
    resources = {}
    for token in text.split(",") if sort == "needs" else [""]:
        if token.startswith(_QUEUED_ON):
            on += token.removeprefix(_QUEUED_ON).split(_OR)
        elif token.startswith(_QUEUED_ACCOUNT):
            accounts += token.removeprefix(_QUEUED_ACCOUNT).split(_OR)
        elif token.startswith(_EXCLUDED):
            excluded.append(token.removeprefix(_EXCLUDED))
        elif found := _RESOURCE.fullmatch(token):
            resources[found[1]] = int(found[2])
        elif _NEED.fullmatch(token):
            needs.append(token)
        else:
            raise ValueError(f"not the name of a queue: {queue!r}")
    for place in (*on, *excluded):
        if not (_HOST.fullmatch(place) or _LABEL.fullmatch(place)):
            raise ValueError(f"not the name of a queue: {queue!r}")
    if not all(_ACCOUNT.fullmatch(one) for one in accounts):
        raise ValueError(f"not the name of a queue: {queue!r}")
    return Constraints(
        tuple(on), tuple(needs), tuple(excluded), resources=resources, accounts=tuple(accounts)
    )


def serves(queue: str, host: HostFacts) -> bool:
    """Tell whether a host serves a queue; no host serves one that it can't read."""
    try:
        constraints = constraints_of(queue)
    except ValueError:
        return False
    return not lacks(constraints, host)


def lacks(constraints: Constraints, host: HostFacts) -> list[str]:
    """Return in words why a host can never take a job; nothing when it can."""
    missing = []
    on = constraints.on
    if on and not any(_is(place, host) for place in on):
        missing.append(_is_not(on[0]) if len(on) == 1 else f"is none of {', '.join(on)}")
    missing += [f"is excluded by {place}" for place in constraints.excluded if _is(place, host)]
    missing += [_without(need) for need in constraints.needs if not _has(need, host)]
    missing += _without_agent(constraints, host)
    for name, count in constraints.resources.items():
        has = host.resources.get(name, 0)
        if has < count:
            missing.append(_too_little(name, has, count))
    return missing


def has_agent(account: str, host: HostFacts, on: Sequence[str] = ()) -> bool:
    """Tell whether a host has the agent of an account, logged in as far as is known.

    A job that is for this host alone (`on`) tries it in any case.
    """
    if f"agent:{agent_of(account)}" not in host.capabilities:
        return False
    return account not in host.unfit or list(on) in ([host.name], *([a] for a in host.aliases))


def is_fit_elsewhere(constraints: Constraints, hosts: Iterable[Host], *, but: str) -> bool:
    """Tell whether another host that is up and takes new work could take a job."""
    others = (facts_of(host) for host in hosts if host.name != but)
    return any(one.is_available and not lacks(constraints, one) for one in others)


def _without_agent(constraints: Constraints, host: HostFacts) -> Iterator[str]:
    """Say why a host can use none of a job's accounts."""
    accounts = constraints.accounts
    if not accounts or any(has_agent(one, host, constraints.on) for one in accounts):
        return
    lacking = dict.fromkeys(
        agent_of(one) for one in accounts if not has_agent(one, replace(host, unfit={}))
    )
    if lacking:
        yield "lacks " + " and ".join(f"agent:{agent}" for agent in lacking)
    for one in accounts:
        if agent_of(one) not in lacking:
            yield f"{one} isn't logged in ({host.unfit[one]})"


def _is(place: str, host: HostFacts) -> bool:
    """Tell whether a name, a pattern or a label is this host's."""
    if place.startswith("@"):
        return any(fits(place[1:], label) for label in host.labels)
    if "*" not in place:
        return place == host.name or place in host.aliases
    return any(fits(place, name) for name in (host.name, *host.aliases))


def _has(need: str, host: HostFacts) -> bool:
    """Tell whether a host has a capability: `transcribe:whisper` is `transcribe` as well."""
    if need.startswith("@"):
        return need[1:] in host.labels
    return need in host.capabilities or any(
        one.startswith((f"{need}:", f"{need}.")) for one in host.capabilities
    )


def _is_not(place: str) -> str:
    return f"has no label {place[1:]}" if place.startswith("@") else f"is not {place}"


def _without(need: str) -> str:
    if need.startswith(KIND):
        return f"runs no {need.removeprefix(KIND)}"
    if (secret := secret_in(need)) is not None:
        return f"has no secret {secret}"
    if is_key(need):
        return "can't open a secret that was sealed for another host"
    return _is_not(need) if need.startswith("@") else f"lacks {need}"


def _too_little(name: str, has: int, count: int) -> str:
    if name == MEMORY:
        return f"has {has / 1e9:.1f} of {count / 1e9:.1f} GB memory"
    return f"has {has} of {count} {name}" if has else f"has no {name}"


def able(constraints: Constraints, hosts: Iterable[HostFacts]) -> list[HostFacts]:
    """Return the hosts that can take a job, or Unplaceable with what each of them lacks."""
    known = list(hosts)
    missing = {host.name: lacks(constraints, host) for host in known}
    found = [host for host in known if not missing[host.name]]
    if not found:
        raise Unplaceable(
            f"no known host can take it: {_each(missing)}",
            missing=missing,
            hint=f"{_remedy(constraints)}; queue it anyway with --wait-for-host",
        )
    return found


def _remedy(constraints: Constraints) -> str:
    secrets = [name for need in constraints.needs if (name := secret_in(need)) is not None]
    if not secrets:
        return "relayq hosts"
    return f"on a host: relayq secret set {secrets[0]}; where which one is: relayq secret ls"


def _each(missing: Mapping[str, Sequence[str]]) -> str:
    said = [f"{name} {' and '.join(words)}" for name, words in sorted(missing.items())]
    more = len(said) - _NAMED
    if more > 0:
        said[_NAMED:] = [f"{more} more likewise can't"]
    return "; ".join(said) or "none is known yet"


def place(
    constraints: Constraints,
    hosts: Iterable[HostFacts],
    strategy: str = Strategy.PULL,
    *,
    randomness: float = 0.0,
    cursor: int = 0,
) -> Placement:
    """Decide where a job waits; Unplaceable when there is no host that it could ever run on.

    `randomness` is from 0 up to 1, `cursor` the number of jobs placed before with the same wide
    queue. Of the hosts only those that take work now are chosen early: where there is none, the
    job waits in its wide queue. A job that asks for nothing is placed without any host as well.
    """
    wide = queue_of(constraints)
    known = list(hosts)
    if not known and wide == "any":
        return Placement(wide)
    candidates = [host for host in able(constraints, known) if host.is_available]
    chosen = None
    if constraints.prefer is not None:
        chosen = next((host for host in candidates if _is(constraints.prefer, host)), None)
    if chosen is None:
        chosen = choose(candidates, strategy_of(strategy), randomness=randomness, cursor=cursor)
    if chosen is None:
        return Placement(wide)
    queue = queue_of(replace(constraints, on=(chosen.name,)))
    if queue == wide:
        return Placement(queue, host=chosen.name)
    overflow = OVERFLOW if constraints.overflow is None else constraints.overflow
    return Placement(queue, host=chosen.name, wide=wide, overflow=overflow)
