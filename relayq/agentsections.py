"""The free sections of the configuration: agents, and what is private.

Their entries have names of the user's own. What an agent's adapter may have is checked where
adapters are (relayq/agents/adapters.py); here only what a host says of an agent is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from relayq import yamlfile
from relayq.errors import ConfigError
from relayq.parsing import (
    choice,
    duration,
    is_host_name,
    label,
    number,
    positive,
    whole,
    word,
    words,
    yes_or_no,
)

#: A job's label that says what of `privacy:` it is under.
PRIVATE = "private:"
MODES = ("read_only", "edit", "full")


def _mode(text: str) -> str:
    return str(choice(*MODES)(text.replace("-", "_")))


#: What an agent's entry may say besides its adapter: what a host, or a submitter, wants of it.
AGENT_KEYS: Mapping[str, Callable[[str], Any]] = {
    "mode": _mode,
    "allow_root_sandbox": yes_or_no,
    "stall": positive(duration),
    "max_throttle_wait": positive(duration),
    "grace": duration,
}
#: What an account's entry may say; `env` is a table of variables.
ACCOUNT_KEYS: Mapping[str, Callable[[str], Any]] = {
    "limit": whole(1),
    "budget": number(0),
    "stagger": duration,
}


@dataclass(frozen=True, slots=True)
class Privacy:
    """Where a job with a private label may be: on these hosts, with these agents; empty: any."""

    agents: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def refusal(
    privacy: Mapping[str, Privacy],
    labels: Iterable[str],
    *,
    account: str,
    is_here: Callable[[tuple[str, ...]], bool],
) -> str:
    """Say why a job with these labels may not run on this host, "" if it may.

    A label that isn't named here is the submitter's alone, whose word is in the job's signed
    constraints. `account` is that of an agent's job, "" of any other.
    """
    for name in (one.removeprefix(PRIVATE) for one in labels if one.startswith(PRIVATE)):
        kept = privacy.get(name)
        if kept is None:
            continue
        agent = account.partition("/")[0]
        if agent and kept.agents and agent not in kept.agents:
            return f"privacy.{name} of this host's configuration doesn't allow {agent}"
        if kept.hosts and not is_here(kept.hosts):
            return f"privacy.{name} of this host's configuration doesn't allow this host"
    return ""


@dataclass
class Free:
    """What the free sections say, and every problem with that."""

    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    privacy: dict[str, Privacy] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[ConfigError] = field(default_factory=list)

    def read_agent(self, agent: str, table: yamlfile.Value, shown: str) -> None:
        """Read an entry of `agents:`."""
        entry = self.agents.setdefault(agent, {})
        for key, place, value in table.table(f"agents.{agent}", self.problems):
            name = f"agents.{agent}.{key}"
            try:
                if key == "accounts":
                    entry[key] = self._accounts(name, value)
                elif key in AGENT_KEYS:
                    entry[key] = _parsed(name, AGENT_KEYS[key], value)
                else:
                    entry[key] = value.plain(name, self.problems)
            except ConfigError as error:
                self.problems.append(error)
            else:
                self.origins[name] = f"{shown}:{place.line}"

    def _accounts(self, name: str, table: yamlfile.Value) -> dict[str, dict[str, Any]]:
        accounts: dict[str, dict[str, Any]] = {}
        for account, place, value in table.table(name, self.problems):
            try:
                accounts[word(account)] = self._account(f"{name}.{account}", value)
            except ValueError as error:
                self.problems.append(ConfigError(f"{name}: {error}, got {account!r}", place=place))
        return accounts

    def _account(self, name: str, table: yamlfile.Value) -> dict[str, Any]:
        account: dict[str, Any] = {}
        for key, place, value in table.table(name, self.problems):
            if key == "env":
                account[key] = value.plain(f"{name}.env", self.problems)
                if not isinstance(account[key], dict):
                    text = f"{name}.env: expected names and values"
                    self.problems.append(ConfigError(text, place=value.place))
            elif key in ACCOUNT_KEYS:
                account[key] = _parsed(f"{name}.{key}", ACCOUNT_KEYS[key], value)
            else:
                known = ", ".join((*ACCOUNT_KEYS, "env"))
                text = f"unknown key {f'{name}.{key}'!r}; an account has {known}"
                self.problems.append(ConfigError(text, place=place))
        return account

    def read_privacy(self, table: yamlfile.Value, shown: str) -> None:
        """Read the section `privacy:`."""
        for name, place, value in table.table("privacy", self.problems):
            try:
                self.privacy[label(name)] = self._privacy(f"privacy.{name}", value)
            except ConfigError as error:
                self.problems.append(error)
            except ValueError as error:
                self.problems.append(ConfigError(f"privacy: {error}, got {name!r}", place=place))
            else:
                self.origins[f"privacy.{name}"] = f"{shown}:{place.line}"

    def _privacy(self, name: str, table: yamlfile.Value) -> Privacy:
        given: dict[str, tuple[str, ...]] = {}
        known = len(self.problems)
        for key, place, value in table.table(name, self.problems):
            if key not in ("agents", "hosts"):
                text = f"unknown key {f'{name}.{key}'!r}; it has agents and hosts"
                self.problems.append(ConfigError(text, place=place))
                continue
            parse = words(str if key == "agents" else _host_pattern)
            given[key] = _parsed(f"{name}.{key}", parse, value, ("array",))
        if not any(given.values()) and len(self.problems) == known:
            # Nothing would be kept private by it.
            raise ConfigError(f"{name}: needs agents or hosts", place=table.place)
        return Privacy(**given)


def _host_pattern(text: str) -> str:
    if not is_host_name(text.removeprefix("@").replace("*", "x")):
        raise ValueError("expected a host's name, a pattern or @label")
    return text


def _parsed(
    name: str, parse: Callable[[str], Any], value: yamlfile.Value, takes: tuple[str, ...] = ()
) -> Any:
    text = value.flat(name, takes).strip()
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}, got {text!r}", place=value.place) from error
