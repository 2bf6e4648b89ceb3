"""What hosts look like, for people and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from relayq.cli.tables import painted
from relayq.cli.texts import age, dollars, inert, number_of, rfc3339, span
from relayq.errors import NoSuchHost
from relayq.model.accounts import Account
from relayq.model.hosts import Host
from relayq.model.stats import Tally
from relayq.parsing import size_text

if TYPE_CHECKING:
    from relayq.client import Relay

HOST_COLUMNS = (
    "HOST",
    "STATE",
    "SLOTS",
    "CPU",
    "LOAD",
    "ON",
    "DONE/FAIL 24h",
    "TYPE",
    "SEEN",
    "CAN",
)
_OPTIONAL = ("CPU", "LOAD", "ON", "TYPE", "CAN")
#: Capabilities that say what sort of machine it is, or what every machine has.
_PLAIN = frozenset(
    "linux macos x86_64 arm64 armv7l raspberry-pi python3 git make gcc rsync".split()
)
_SYSTEMS = {"darwin": "macos"}
_PLAIN_PREFIXES = ("kind:", "encoder:", "agent:", "transcribe:", "opens:")

LastDay = Mapping[str, tuple[int, int]]


def hosts_of(relay: Relay) -> list[Host]:
    """Return every host, by name."""
    return relay.session().store.hosts.list(online_within=relay.config.lease.length)


def find(relay: Relay, name: str) -> Host:
    """Return the host of this name, or that goes by it."""
    hosts = hosts_of(relay)
    name = relay.config.host_called(name)
    own = [host for host in hosts if host.name == name]
    for host in own or [host for host in hosts if name in host.aliases]:
        return host
    known = ", ".join(host.name for host in hosts) or "none"
    raise NoSuchHost(f"no such host: {name} (known hosts: {known})", hint="relayq hosts")


def host_table(
    hosts: Sequence[Host], now: float, last_day: LastDay
) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of `status`, without the columns that say nothing."""
    rows = [_row(host, now, last_day) for host in hosts]
    kept = [
        i
        for i, column in enumerate(HOST_COLUMNS)
        if column not in _OPTIONAL or any(row[i] != "-" for row in rows)
    ]
    return [HOST_COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _row(host: Host, now: float, last_day: LastDay) -> list[str]:
    state, why = host.standing
    done, failed = of_last_day(host, last_day)
    return [
        host.name,
        f"{state} ({why})" if why else state,
        f"{host.active}/{host.slots}",
        _cpu(host) if host.is_online else "-",
        f"{host.load:.1f}" if host.is_online and host.load is not None else "-",
        _power(host.facts.get("power")) if host.is_online else "-",
        f"{done}/{failed}",
        host.model or _SYSTEMS.get(host.os, host.os) or "-",
        f"{age(now - host.seen_at)} ago",
        " ".join(shown_capabilities(host)) or "-",
    ]


def of_last_day(host: Host, last_day: LastDay) -> tuple[int, int]:
    """Return how many attempts succeeded and failed, under former names too."""
    found = [last_day.get(name, (0, 0)) for name in (host.name, *host.aliases)]
    return sum(done for done, _ in found), sum(failed for _, failed in found)


def _cpu(host: Host) -> str:
    cpu = host.facts.get("cpu")
    if isinstance(cpu, Mapping):
        return f"{cpu.get('own', 0):.0f}%/{cpu.get('others', 0):.0f}%"
    return f"{cpu:.0f}%" if isinstance(cpu, int | float) else "-"


def _power(power: Any) -> str:
    if not isinstance(power, Mapping):
        return "-"
    return "ac" if power.get("plugged") else f"bat {power.get('percent', 0):.0f}%"


def shown_capabilities(host: Host) -> list[str]:
    """Return the capabilities that tell this host from others, its labels first."""
    told = [
        word
        for word in host.capabilities
        if word not in _PLAIN and not word.startswith(_PLAIN_PREFIXES)
    ]
    slots = host.facts.get("resources", {})
    counted = [f"{name}:{count}" for name, count in slots.items()]
    labels = [f"@{label}" for label in host.labels]
    return [*labels, *counted, *(word for word in told if word not in slots)]


def host_as_json(host: Host, last_day: LastDay | None = None) -> dict[str, Any]:
    """Return a host as JSON shows it."""
    state, reason = host.standing
    shown = {
        "name": host.name,
        "online": host.is_online,
        "state": state,
        "reason": reason or None,
        "slots": host.slots,
        "active": host.active,
        "queued": host.queued,
        "finished": host.finished,
        "version": host.version,
        "seen_at": rfc3339(host.seen_at),
        "drained_at": None if host.drained_at is None else rfc3339(host.drained_at),
        "labels": list(host.labels),
        "aliases": list(host.aliases),
        "capabilities": list(host.capabilities),
        "facts": dict(host.facts),
    }
    if last_day is not None:
        done, failed = of_last_day(host, last_day)
        shown["last_day"] = {"succeeded": done, "failed": failed}
    return shown


def host_details(host: Host, now: float, last_day: LastDay, width: int | None = None) -> list[str]:
    """Return the lines of `hosts show`, none wider than `width` unless a word is."""
    state, why = host.standing
    shown = painted(state, state.split(" ")[0]) + (f" ({inert(why)})" if why else "")
    lines = [f"{inert(host.name)}  {shown}  seen {age(now - host.seen_at)} ago"]
    for label, value in _details(host, last_day):
        if value:
            pieces = _folded(inert(value, longest=None), width)
            lines += [f"  {label:<10}{pieces[0]}", *(" " * 12 + piece for piece in pieces[1:])]
    return lines


def _folded(text: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    room = max(20, width - 12)
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [text]


def _details(host: Host, last_day: LastDay) -> Iterator[tuple[str, str]]:
    facts = host.facts
    done, failed = of_last_day(host, last_day)
    system = _SYSTEMS.get(host.os, host.os)
    yield "Machine", _joined([host.model, facts.get("cpu_model"), facts.get("arch"), system])
    yield "Size", _joined(_sizes(facts))
    yield "Now", _joined(_now(host)) if host.is_online else ""
    yield (
        "Slots",
        f"{host.active} of {host.slots} busy" + _waiting(host.queued),
    )
    yield "24 hours", f"{done} succeeded, {failed} failed"
    yield "Address", str(facts.get("address") or "")
    yield "Aliases", ", ".join(host.aliases)
    yield "Labels", ", ".join(host.labels)
    yield "Weight", "" if facts.get("weight", 1) == 1 else f"{facts['weight']:g}"
    yield "Resources", _counted(facts.get("resources", {}))
    yield "Limits", _counted(facts.get("limits", {}))
    yield "Graphics", ", ".join(str(card.get("name")) for card in facts.get("gpus", ()))
    yield "Encoders", ", ".join(facts.get("encoders", ()))
    yield "Agents", ", ".join(_agents(facts.get("agents", {})))
    yield "Refused", "; ".join(f"{k}: {why}" for k, why in facts.get("unfit", {}).items())
    yield "Tools", ", ".join(f"{k} {v}".strip() for k, v in facts.get("tools", {}).items())
    tools = facts.get("tools", {})
    rest = [word for word in host.capabilities if word not in tools]
    yield "Can", ", ".join(rest)
    yield "Versions", f"relayq {host.version}, python {facts.get('python', '?')}"


def _now(host: Host) -> Iterable[str]:
    yield f"load {host.load:.1f}" if host.load is not None else ""
    yield f"CPU {cpu}" if (cpu := _cpu(host)) != "-" else ""
    free = host.facts.get("memory_free_bytes")
    yield f"{size_text(free)} memory free" if free is not None else ""
    power = _power(host.facts.get("power"))
    yield {"-": "", "ac": "plugged in"}.get(power, power.replace("bat", "on battery"))


def _waiting(count: int) -> str:
    verb = "waits" if count == 1 else "wait"
    return f", {number_of(count, 'job')} {verb} for this host alone" if count else ""


def _sizes(facts: Mapping[str, Any]) -> Iterable[str]:
    yield f"{facts['cpus']} CPUs" if "cpus" in facts else ""
    yield f"{size_text(facts['memory_bytes'])} memory" if "memory_bytes" in facts else ""
    if "disk_bytes" in facts:
        free, whole = facts.get("disk_free_bytes", 0), facts["disk_bytes"]
        yield f"{size_text(free)} of {size_text(whole)} disk free"


def _agents(agents: Mapping[str, Any]) -> Iterable[str]:
    said = {True: "", False: " (not logged in)", None: " (login unknown)"}
    for name, facts in agents.items():
        old = f" (older than {facts['too_old']})" if facts.get("too_old") else ""
        yield f"{name} {facts.get('version', '')}".strip() + said[facts.get("logged_in")] + old


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _joined(parts: Iterable[Any]) -> str:
    return ", ".join(str(part) for part in parts if part)


def account_as_json(account: Account) -> dict[str, Any]:
    """Return an account of an agent as JSON shows it."""
    shown = asdict(account)
    for name in ("until", "next_at", "used_at"):
        shown[name] = None if shown[name] is None else rfc3339(shown[name])
    return {**shown, "active": list(account.active)}


STATS_COLUMNS = ("DONE", "FAILED", "CANCELLED", "RETRIED", "LOST", "SUCCESS", "MEAN", "WAIT")
#: What agents used; further columns where they worked.
USAGE_COLUMNS = ("TOKENS", "COST")


def stats_row(tally: Tally) -> list[str]:
    """Return a row of `stats`."""
    rate, run, wait = tally.success_rate, tally.mean_run, tally.mean_wait
    return [
        str(tally.succeeded),
        str(tally.failed),
        str(tally.cancelled),
        str(tally.retried),
        str(tally.lost),
        "-" if rate is None else f"{rate:.0%}",
        "-" if run is None else span(run),
        "-" if wait is None else span(wait),
    ]


def usage_row(tally: Tally) -> list[str]:
    """Return a row of `stats` with what agents used."""
    return [*stats_row(tally), f"{tally.tokens_in + tally.tokens_out:,}", dollars(tally.cost_usd)]


def stats_as_json(tally: Tally) -> dict[str, Any]:
    """Return the numbers of `stats` as JSON shows them."""
    return {
        "succeeded": tally.succeeded,
        "failed": tally.failed,
        "cancelled": tally.cancelled,
        "needs_human": tally.needs_human,
        "retried": tally.retried,
        "lost": tally.lost,
        "success_rate": _rounded(tally.success_rate),
        "mean_duration": _rounded(tally.mean_run),
        "mean_queue_time": _rounded(tally.mean_wait),
        "cost_usd": round(tally.cost_usd, 6),
        "tokens_in": tally.tokens_in,
        "tokens_out": tally.tokens_out,
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)
