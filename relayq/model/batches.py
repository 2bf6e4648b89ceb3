"""Short commands that travel together: how many, what each came to, and what is left of them.

A batch is one job (`run_batch`) that runs its items one after another. What it says of them are
lines of JSON on its standard output: pieces of an item's output, its end, and which items it gives
back because another one took long.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from relayq.errors import RelayqError
from relayq.model.halts import COUNTED, WAYS, Halt
from relayq.model.jobs import ALPHABET, ID_LENGTH, Spec

KIND = "run_batch"
SINGLE = "run_command"
#: The fact of a job that says which map it is of, and of a single one which item it is.
MAP, ITEM = "map", "item"
#: The variable by which a command knows the number of its item.
VARIABLE = "RELAYQ_ITEM"
#: So many items go singly, to be measured.
MEASURED = 8
#: Fewer aren't worth being measured.
_FEWEST = 32
#: What takes less, in seconds, is short.
_SHORT = 0.05
#: The work of a batch, in seconds.
_WORK = 1.0
#: How long one of its items may take, in seconds, before those after it are given back.
PATIENCE = 1.0
#: Of a batch: its spec is read by whoever lists jobs.
LARGEST = 500
#: Below it an item's own time is mostly the start of its process.
_QUICKEST = 0.002
#: What a job below a batch may count up to: a batch's own items are no swarm.
_MOST_BELOW = 10_000
#: How many batches each slot gets at least, so that none is idle while another has several left.
_EACH_SLOT = 4
#: What a batch may take beyond the limit of its longest item.
_MARGIN = 300.0


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of one item of a batch; `stdout` and `stderr` are what it wrote."""

    number: int
    exit_code: int | None = None
    signal: int | None = None
    reason: str = "exit"
    seconds: float = 0.0
    stdout: bytes = b""
    stderr: bytes = b""
    host: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether the command succeeded."""
        return self.reason == "exit" and self.exit_code == 0

    @property
    def failure(self) -> str:
        """Why it failed, in a few words."""
        if self.reason == "exit":
            return f"exit {self.exit_code}"
        return f"signal {self.signal}" if self.reason == "signal" else self.reason


class Lines:
    """Reads what a batch writes, in whatever pieces that comes."""

    def __init__(self) -> None:
        self._begun = b""
        self._written: dict[tuple[int, str], list[bytes]] = {}
        #: The items that it gave back.
        self.given: list[int] = []
        self.host: str | None = None

    def feed(self, data: bytes) -> Iterator[Ran]:
        """Yield the items whose ends are in what has come so far."""
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            said = _object(line)
            if "host" in said:
                # An attempt begins; what one before it left half told is told anew.
                self.host, self._written = str(said["host"]), {}
            elif "given" in said:
                self.given += [number for number in said["given"] if isinstance(number, int)]
            elif isinstance(said.get("item"), int):
                yield from self._take(said)

    def _take(self, said: Mapping[str, Any]) -> Iterator[Ran]:
        number = said["item"]
        for channel in ("out", "err"):
            if channel in said:
                self._written.setdefault((number, channel), []).append(_bytes(said[channel]))
        if "reason" in said:
            yield Ran(
                number,
                exit_code=said.get("exit"),
                signal=said.get("signal"),
                reason=str(said["reason"]),
                seconds=float(said.get("seconds", 0.0)),
                stdout=b"".join(self._written.pop((number, "out"), [])),
                stderr=b"".join(self._written.pop((number, "err"), [])),
                host=self.host,
            )


def _bytes(text: Any) -> bytes:
    return str(text).encode("utf-8", "surrogateescape")


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def is_worth_measuring(count: int) -> bool:
    """Whether there are so many items that batches of them would save anything."""
    return count >= _FEWEST


def are_short(times: Iterable[float]) -> bool:
    """Whether all of these items were short."""
    return all(one < _SHORT for one in times)


def batch_size(times: Sequence[float], left: int, slots: int) -> int:
    """Return how many of `left` items travel together, by the times of the first; 1 is for none."""
    if not times or not are_short(times):
        return 1
    by_work = _WORK / max(sorted(times)[len(times) // 2], _QUICKEST)
    by_slots = left / (max(1, slots) * _EACH_SLOT)
    return max(1, min(LARGEST, math.floor(by_work), math.ceil(by_slots)))


def why_never(spec: Spec) -> str:
    """Return what keeps the items of such jobs from travelling together, "" if nothing does."""
    asked = {
        "files": spec.files_in or spec.files_out,
        "secrets": spec.secrets,
        "git": spec.git,
        "a limit of memory": spec.memory,
        "a limit of processes": spec.processes,
        "retries": spec.retries,
        "a grant": spec.grant,
        "an account": spec.accounts,
        "another kind": spec.kind != SINGLE,
    }
    return next((what for what, is_asked in asked.items() if is_asked), "")


def batch_of(
    pattern: Spec,
    items: Sequence[tuple[int, Any]],
    *,
    id: str,
    halts: bool = False,
    gives_back: bool = True,
) -> Spec:
    """Return the job that runs these commands (number and command each) one after another.

    With `halts`, one that fails ends it, and the rest is given back, as when one takes long, if it
    `gives_back` at all.
    """
    own = {key: value for key, value in pattern.payload.items() if key in ("cwd", "env")}
    payload: dict[str, Any] = {**own, "items": [[number, cmd] for number, cmd in items]}
    payload |= {} if pattern.timeout is None else {"timeout": pattern.timeout}
    payload |= {} if pattern.max_output is None else {"max_output": pattern.max_output}
    payload |= {"patience": PATIENCE} if gives_back else {}
    payload |= {"halts": True} if halts else {}
    return replace(
        pattern,
        id=id,
        kind=KIND,
        payload=payload,
        timeout=None if pattern.timeout is None else pattern.timeout * len(items) + _MARGIN,
        max_output=None,
    )


def single_of(pattern: Spec, number: int, cmd: Any, *, id: str) -> Spec:
    """Return the job that runs one item's command."""
    payload = {**pattern.payload, "cmd": cmd}
    payload["env"] = {**payload.get("env", {}), VARIABLE: str(number)}
    meta = {**pattern.meta, ITEM: str(number)}
    return replace(pattern, id=id, payload=payload, meta=meta)


def taken_apart(batch: Spec, numbers: Sequence[int]) -> list[Spec]:
    """Return single jobs for these items of a batch; their ids are always the same."""
    pattern = _pattern(batch)
    commands = {number: cmd for number, cmd in batch.payload["items"]}
    kept = [number for number in numbers if number in commands]
    return [
        single_of(pattern, number, commands[number], id=id_of(batch.id, number)) for number in kept
    ]


def given_back(batch: Spec, numbers: Sequence[int]) -> list[Spec]:
    """Return the jobs below a batch that these items become; a repeat gives the same."""
    grant = {**batch.grant, "most": _MOST_BELOW, "at_once": _MOST_BELOW}
    above = (*batch.ancestors, batch.id)
    return [replace(one, ancestors=above, grant=grant) for one in taken_apart(batch, numbers)]


def _pattern(batch: Spec) -> Spec:
    """Return the spec that the items of a batch would have as single jobs."""
    own = {key: value for key, value in batch.payload.items() if key in ("cwd", "env")}
    return replace(
        batch,
        kind=SINGLE,
        payload=own,
        timeout=batch.payload.get("timeout"),
        max_output=batch.payload.get("max_output"),
    )


def again(batch: Spec, numbers: Sequence[int], ids: Sequence[str]) -> list[Spec]:
    """Return new single jobs for these items of a batch that ended."""
    pattern = replace(_pattern(batch), ancestors=(), grant={}, after=(), after_any=(), due_at=None)
    commands = {number: cmd for number, cmd in batch.payload["items"]}
    return [
        single_of(pattern, number, commands[number], id=id)
        for number, id in zip(numbers, ids, strict=True)
    ]


def id_of(batch: str, number: int) -> str:
    """Return the id of the single job that an item becomes which its batch gives back."""
    digest = hashlib.sha256(f"{batch} {number}".encode()).digest()
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest[:ID_LENGTH])


def numbers_of(spec: Spec) -> list[int]:
    """Return the items of a job of a map, none of any other."""
    if spec.kind == KIND:
        return [number for number, _ in spec.payload.get("items", ())]
    number = spec.meta.get(ITEM, "")
    return [int(number)] if number.isdecimal() and MAP in spec.meta else []


def read_halt(text: str, *, name: str, count: int) -> Halt | None:
    """Return what ends a map early: `now,fail=3`, `soon,fail=10%`, `now,success=1`, `never`."""
    if text == "never":
        return None
    way, comma, rest = text.partition(",")
    counted, equals, amount = rest.partition("=")
    number = amount.removesuffix("%")
    if way in WAYS and comma and counted in COUNTED and equals and number.isdecimal():
        if not amount.endswith("%"):
            if int(number) > 0:
                return Halt(name, int(number), counted, way)
        elif 0 < int(number) <= 100:
            return Halt(name, max(1, math.ceil(count * int(number) / 100)), counted, way)
    raise RelayqError(
        f"a halt is never, or {' or '.join(WAYS)} with {', '.join(COUNTED)} and a number or a "
        f"percentage, not {text!r}",
        hint="--halt now,fail=1 or --halt soon,fail=10%",
    )
