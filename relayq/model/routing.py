"""Where described work should go: a table of plain rules, and what speaks against a proposal.

Nothing is queued by what is decided here: a person sees the proposal first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from relayq.model.hosts import Host

SORTS = ("agent", "command")
#: A word of the description, and the capability that it speaks of.
_NEEDS: Mapping[str, str] = {
    "ffmpeg|video|videos|transcode|transcoding|mp4|h264|hevc|codec": "ffmpeg",
    "whisper|transcribe|transcribing|transcription|subtitles": "whisper",
    "xcode|xcodebuild|ios|iphone|ipad|swiftui": "xcodebuild",
    "macos|osx|applescript|homebrew": "macos",
    "docker|container|containers|dockerfile": "docker",
    "cuda|gpu|pytorch|finetune|fine-tune": "gpu",
    "gpio|raspberry": "raspberry-pi",
    "npm|react|frontend|typescript": "node",
    "cargo|rust": "cargo",
    "golang": "go",
    "latex|pdflatex": "pdflatex",
}
_READS = re.compile(
    r"\b(review|explain|analy[sz]e|audit|summari[sz]e|describe|understand|inspect|investigate|"
    r"what is|what are|why|how does|where is|list)\b",
    re.IGNORECASE,
)
_CHANGES = re.compile(
    r"\b(fix|add|implement|refactor|write|change|update|remove|delete|rename|create|build|port|"
    r"migrate|improve|upgrade|convert|apply|install|clean)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"`([^`\n]+)`")
_WORD = re.compile(r"[a-z0-9@][a-z0-9_.@+-]*", re.IGNORECASE)
#: Of several agents that would do, the earlier one.
_ORDER = ("claude", "codex", "gemini")


@dataclass(frozen=True, slots=True)
class Proposal:
    """Where work should go; `host` empty means any, `permission` empty the agent's own default.

    `command` is what runs when no agent does. `is_sure` says that more than availability spoke for
    the host.
    """

    sort: str
    agent: str = ""
    host: str = ""
    needs: tuple[str, ...] = ()
    permission: str = ""
    command: str = ""
    reasons: tuple[str, ...] = ()
    is_sure: bool = False


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is said beside the description: what is fixed, and what of agents and hosts is allowed.

    `agent` "none" wants none.
    """

    host: str = ""
    agent: str = ""
    sort: str = ""
    default_agent: str = "claude"
    agents: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def agents_of(host: Host) -> list[str]:
    """Return the agents that a host can run, in the order of preference."""
    found = [word.partition(":")[2] for word in host.capabilities if word.startswith("agent:")]
    return sorted(found, key=lambda name: (_rank(name), name))


def _rank(agent: str) -> int:
    return _ORDER.index(agent) if agent in _ORDER else len(_ORDER)


def propose(description: str, hosts: Sequence[Host], wishes: Wishes) -> Proposal:
    """Return where work of this description should go, by rules alone."""
    words = [word.strip(".").casefold() for word in _WORD.findall(description)]
    sort, command, reasons = _sort(description, wishes)
    needs = _needs(words, hosts)
    reasons += [f"it speaks of what needs {one}" for one in needs]
    named = wishes.host or _named(words, hosts)
    if named and not wishes.host:
        reasons.append(f"it names {named}")
    allowed = [one for one in hosts if not wishes.hosts or one.name in wishes.hosts]
    fitting = [one for one in allowed if named in ("", one.name) and _lacks(one, needs) == ()]
    agent = _agent(words, fitting or allowed, wishes) if sort == "agent" else ""
    if agent and agent in words:
        reasons.append(f"it names {agent}")
    host = named
    if not named and fitting:
        able = [one for one in fitting if not agent or agent in agents_of(one)]
        if able:
            best = min(able, key=_burden)
            host = best.name
            reasons.append(f"{host} is {_standing(best)}" + (f" and has {agent}" if agent else ""))
    return Proposal(
        sort=sort,
        agent=agent,
        host=host,
        needs=needs,
        permission=_permission(description) if sort == "agent" else "",
        command=command,
        reasons=tuple(reasons),
        is_sure=bool(named or needs or len(fitting) == 1),
    )


def _sort(description: str, wishes: Wishes) -> tuple[str, str, list[str]]:
    quoted = _QUOTED.search(description)
    command = quoted[1] if quoted else description
    if wishes.sort:
        return wishes.sort, command, []
    if wishes.agent == "none":
        return "command", command, []
    starts = re.match(r"\s*(run|execute|start)\s+`", description, re.IGNORECASE)
    if quoted and starts and not wishes.agent:
        return "command", command, ["it quotes a command to run"]
    return "agent", command, []


def _needs(words: Iterable[str], hosts: Sequence[Host]) -> tuple[str, ...]:
    """Return what the words speak of, as far as it tells hosts apart or nobody has it."""
    spoken = set(words)
    found = [need for terms, need in _NEEDS.items() if spoken & set(terms.split("|"))]
    return tuple(one for one in found if not all(_lacks(host, (one,)) == () for host in hosts))


def _named(words: Sequence[str], hosts: Sequence[Host]) -> str:
    for host in hosts:
        if {host.name, *host.aliases} & set(words):
            return host.name
    return ""


def _agent(words: Sequence[str], hosts: Sequence[Host], wishes: Wishes) -> str:
    if wishes.agent:
        return wishes.agent
    there = {name for host in hosts for name in agents_of(host)}
    allowed = there if not wishes.agents else there & set(wishes.agents)
    for word in words:
        if word in allowed:
            return word
    if wishes.default_agent in allowed:
        return wishes.default_agent
    if allowed:
        return min(allowed, key=lambda name: (_rank(name), name))
    return wishes.agents[0] if wishes.agents else wishes.default_agent


def _permission(description: str) -> str:
    """Return what is enough for work that only asks to read, "" for any other."""
    return "read_only" if _READS.search(description) and not _CHANGES.search(description) else ""


def _burden(host: Host) -> tuple[bool, bool, float, str]:
    takes_work = host.standing[0].startswith("online")
    return not host.is_online, not takes_work, host.active / max(1, host.slots), host.name


def _standing(host: Host) -> str:
    return host.standing[0].removeprefix("online ")


def _lacks(host: Host, needs: Iterable[str]) -> tuple[str, ...]:
    has = {*host.capabilities, *host.facts.get("resources", {})}
    if host.facts.get("gpus"):
        has.add("gpu")
    return tuple(one for one in needs if one not in has)


def objections(
    proposal: Proposal, hosts: Sequence[Host], listed: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Return what forbids a proposal, and what is worth a warning.

    `listed` are the agents that somebody has described. A capability that is missing forbids it;
    an agent that a host doesn't list may be installed there all the same.
    """
    blocks: list[str] = []
    warnings: list[str] = []
    by_name = {host.name: host for host in hosts}
    host = by_name.get(proposal.host)
    if proposal.host and host is None:
        known = ", ".join(by_name) or "none yet"
        return [f"no such host: {proposal.host} (known hosts: {known})"], []
    for need in proposal.needs:
        having = [one.name for one in hosts if not _lacks(one, (need,))]
        where = f"; {', '.join(having)} has it" if having else "; no host has it"
        if (host is not None and _lacks(host, (need,))) or not having:
            blocks.append(f"{proposal.host or 'the fleet'} lacks {need}{where}")
    if proposal.sort == "agent":
        if proposal.agent not in listed:
            warnings.append(f"{proposal.agent} is no agent that relayq knows")
        if host is not None and proposal.agent not in agents_of(host):
            warnings.append(f"{host.name} doesn't list {proposal.agent} as logged in")
        elif host is None and not any(proposal.agent in agents_of(one) for one in hosts):
            warnings.append(f"no host lists {proposal.agent} as logged in")
    if host is not None and not host.is_online:
        warnings.append(f"{host.name} is offline; the job would wait")
    return blocks, warnings
