"""Who may submit to a host that asks for more than the fleet's key, and what.

A line of `authorized_submitters` is `ed25519 BASE64 NAME`, and after it what the owner of that key
is limited to; so it is much like ssh's authorized_keys. Empty lines and those that begin with `#`
say nothing.
"""

from __future__ import annotations

import base64
import binascii
import os.path
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from relayq.errors import RelayqError
from relayq.model.jobs import Spec
from relayq.parsing import duration, fits

TYPE = "ed25519"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,79}")
#: What a line must quote; stars and commas mean nothing to it.
_QUOTED = re.compile(r"[\s'\"\\]")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
#: Kinds whose command is its submitter's, and those of agents, which run what they like.
_COMMANDS = frozenset({"run_command", "run_batch"})
_AGENTS = frozenset({"run_agent", "run_claude"})
_SHELLS = frozenset("sh ash bash dash ksh mksh zsh fish csh tcsh busybox".split())
#: Options with values, and those that are there or not.
_WITH_VALUE = ("kinds", "hosts", "cwd", "user", "max-timeout", "expires")
_FLAGS = ("no-shell", "children")


def submitter_id(public: bytes) -> str:
    """Return the short name of a public key."""
    # OpenSSL takes 7 ms to load, and most commands sign nothing.
    import hashlib

    return hashlib.sha256(b"relayq submitter\0" + public).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Submitter:
    """A public key, whose it is, and what its owner may submit here.

    `kinds`, `hosts` and `cwd` are names and patterns of which one must fit; an empty one limits
    nothing, nor does None. A job may start in a directory of `cwd` or below one. `user` is who its
    jobs run as. `expires` is when the line ends, in Unix seconds. With `no_shell` commands are
    programs with arguments, and agents may only read. With `children` the key is a worker's, and
    good only for jobs that were submitted by jobs of others that are authorised.
    """

    public: bytes
    name: str
    kinds: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    cwd: tuple[str, ...] = ()
    user: str | None = None
    max_timeout: float | None = None
    expires: float | None = None
    no_shell: bool = False
    children: bool = False

    @property
    def id(self) -> str:
        """The short name of its key."""
        return submitter_id(self.public)

    @property
    def limits(self) -> str:
        """What follows the name on its line."""
        words = []
        for option in (*_WITH_VALUE, *_FLAGS):
            value = getattr(self, option.replace("-", "_"))
            if value in (None, (), False):
                continue
            words.append(option if value is True else f"{option}={_said(option, value)}")
        return " ".join(words)

    @property
    def line(self) -> str:
        """Its line."""
        return f"{public_line(self.public, self.name)} {self.limits}".strip()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        held |= {name: list(held[name]) for name in ("kinds", "hosts", "cwd")}
        return {**held, "id": self.id, "public": base64.b64encode(self.public).decode()}

    def why_not(self, spec: Spec, *, host: str, now: float, timeout: float | None) -> str:
        """Return why this job may not run here, "" if it may; `timeout` is the one it will have."""
        if self.expires is not None and now >= self.expires:
            return f"the line of {self.name} ended {_date(self.expires)}"
        if self.kinds and not _fits(spec.kind, self.kinds):
            return f"{self.name} may submit {', '.join(self.kinds)} only, not {spec.kind}"
        if self.hosts and not _fits(host, self.hosts):
            return f"{self.name} may submit to {', '.join(self.hosts)} only, not to {host}"
        if self.max_timeout is not None and (timeout is None or timeout > self.max_timeout):
            limit = _plain(self.max_timeout)
            return f"a job of {self.name} needs a time limit of at most {limit} s"
        if self.no_shell and (why := _shell_in(spec)):
            return f"{self.name} may not use a shell: {why}"
        return ""

    def why_not_in(self, directory: str, *, home: str) -> str:
        """Return why a job may not start in this directory, of which no part is a link."""
        for pattern in self.cwd:
            whole = os.path.join(home, pattern[2:] if pattern.startswith("~/") else pattern)
            whole = home if pattern == "~" else os.path.normpath(whole)
            if fits(whole, directory) or fits(f"{whole.rstrip('/')}/*", directory):
                return ""
        if not self.cwd:
            return ""
        return f"a job of {self.name} may start in {', '.join(self.cwd)} only, not in {directory}"


def public_line(public: bytes, name: str) -> str:
    """Return a public key as it is given to those who are to authorise it."""
    return f"{TYPE} {base64.b64encode(public).decode()} {name}"


def read_submitters(text: str) -> tuple[Submitter, ...]:
    """Read the whole file; one line that can't be read spoils all, so that no limit is lost."""
    found: dict[bytes, Submitter] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            one = read_line(line)
        except RelayqError as error:
            raise RelayqError(f"line {number}: {error.message}", hint=error.hint) from error
        if one.public in found:
            raise RelayqError(f"line {number}: the key of {found[one.public].name} is here twice")
        if one.name in {other.name for other in found.values()}:
            raise RelayqError(f"line {number}: another key is called {one.name} as well")
        found[one.public] = one
    return tuple(found.values())


def read_line(line: str) -> Submitter:
    """Read one line."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise RelayqError(f"a quote isn't closed ({error})") from error
    if len(words) < 3 or words[0] != TYPE:
        raise RelayqError(
            f"a key is `{TYPE} BASE64 NAME`, and its limits after that",
            hint="relayq key show, on the machine that submits",
        )
    _, encoded, name, *options = words
    return Submitter(_public(encoded), check_submitter_name(name), **_options(options))


def check_submitter_name(name: str) -> str:
    """Return the name of a key's owner, or raise for one that no line could have."""
    if not _NAME.fullmatch(name):
        raise RelayqError(f"a key's name has letters, digits, '.', '_', '@', '+', '-': {name!r}")
    return name


def _public(encoded: str) -> bytes:
    try:
        public = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        public = b""
    if len(public) != 32:
        raise RelayqError(f"no Ed25519 key: {encoded!r:.60}")
    return public


def _options(words: Iterable[str]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name in said:
            raise RelayqError(f"{name} is said twice")
        if name in _FLAGS and not equals:
            said[name] = True
        elif name in _WITH_VALUE and value:
            said[name] = value
        else:
            known = ", ".join([*(f"{one}=..." for one in _WITH_VALUE), *_FLAGS])
            raise RelayqError(f"not a limit: {word!r}; there is {known}")
    return limits_of(said)


def limits_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line's options, by their names there, as the fields of a Submitter."""
    read: dict[str, Any] = {}
    for name, value in said.items():
        field = name.replace("-", "_")
        if name in ("kinds", "hosts", "cwd"):
            read[field] = tuple(one.strip() for one in value.split(",") if one.strip())
            if not read[field]:
                raise RelayqError(f"{name} names nothing")
        elif name == "max-timeout":
            read[field] = _seconds(value)
        elif name == "expires":
            read[field] = _instant(value)
        elif name == "user" and not _USER.fullmatch(value):
            raise RelayqError(f"not a user's name: {value!r}")
        else:
            read[field] = value
    if bad := [
        one for one in read.get("cwd", ()) if not one.startswith(("/", "~/")) and one != "~"
    ]:
        raise RelayqError(f"a directory begins with / or ~/, not {bad[0]!r}")
    return read


def _seconds(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise RelayqError(f"max-timeout: {error}, got {text!r}") from error


def _instant(text: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise RelayqError(f"expires is a date such as 2027-01-31, not {text!r}") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _date(instant: float) -> str:
    at = datetime.fromtimestamp(instant, UTC)
    is_midnight = (at.hour, at.minute, at.second) == (0, 0, 0)
    return f"{at:%Y-%m-%d}" if is_midnight else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _plain(number: float) -> str:
    """Return a number as a duration can be read: without an exponent."""
    return f"{number:f}".rstrip("0").rstrip(".")


def _said(option: str, value: Any) -> str:
    """Return an option's value as a line has it."""
    if option == "expires":
        return _date(value)
    if option == "max-timeout":
        return f"{_plain(value)}s"
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return shlex.quote(text) if _QUOTED.search(text) else text


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fits(pattern, name) for pattern in patterns)


def _shell_in(spec: Spec) -> str:
    """Return what of a job is a shell's, or could be."""
    if spec.kind in _AGENTS:
        allowed = spec.payload.get("permission")
        return "" if allowed == "read_only" else "an agent needs --permission read_only"
    if spec.kind == "upgrade":
        # What an installation runs is its source's to say.
        return "an upgrade from elsewhere" if spec.payload.get("source") else ""
    if spec.kind not in _COMMANDS:
        return ""
    items = spec.payload.get("items")
    commands = [spec.payload.get("cmd")] if items is None else [one[1] for one in items]
    for command in commands:
        if not isinstance(command, list | tuple) or not command:
            return "a command is a program and its arguments"
        if os.path.basename(str(command[0])) in _SHELLS:
            return f"{command[0]} is one"
    return ""
