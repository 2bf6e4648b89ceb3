"""How people name jobs: selectors, filters, and what names and groups may look like.

Pure parsing; `store/lookup.py` finds the jobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from relayq.errors import RelayqError
from relayq.model.jobs import JobRecord, JobState
from relayq.parsing import fits

#: A shorter beginning of an id is too easily another job's.
SHORTEST_PREFIX = 4
LONGEST_TEXT = 200

_WORD = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_LAST = re.compile(r"last(?:~(\d{1,6}))?")
_GROUP = re.compile(rf"@({_WORD})")
_RANGE = re.compile(rf"@?({_WORD})\[(\d{{1,9}})(?:-(\d{{1,9}}))?\]")
_FILTERS = ("state", "host", "kind", "name", "label", "group")


@dataclass(frozen=True, slots=True)
class Last:
    """The job that was submitted last, or `back` before it."""

    back: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """The jobs of a group; of these the first to the last by their submission, from 1 on."""

    name: str
    first: int = 1
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A name, an id, or the beginning of an id."""

    text: str


Selector = Last | Group | Word


def parse(text: str) -> Selector:
    """Return what a selector means: `last`, `last~2`, `@group`, `group[1-5]`, a name or an id."""
    text = text.strip()
    if found := _LAST.fullmatch(text):
        return Last(int(found[1] or 0))
    if found := _GROUP.fullmatch(text):
        return Group(found[1])
    if found := _RANGE.fullmatch(text):
        first, last = int(found[2]), int(found[3] or found[2])
        if not 1 <= first <= last:
            raise RelayqError(f"{text} is an empty range; a group's first job is {found[1]}[1]")
        return Group(found[1], first, last)
    return Word(text)


def check_name(name: str) -> str:
    """Return a job's name, or raise when it can't be told from other selectors."""
    check_text("a name", name)
    if name.startswith("@") or name != name.strip() or not isinstance(parse(name), Word):
        raise RelayqError(f"a job can't be named {name!r}: that selects other jobs")
    return name


def check_group(group: str) -> str:
    """Return a group's name, or raise when `@group` or `group[1]` wouldn't select it."""
    if not re.fullmatch(_WORD, group) or len(group) > LONGEST_TEXT:
        raise RelayqError(f"a group's name has letters, digits, '.', '_' and '-' only: {group!r}")
    return group


def check_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels without repeats, or raise for one with spaces or commas."""
    if isinstance(labels, str):
        raise RelayqError("labels are a list of texts, not one text")
    kept = tuple(dict.fromkeys(check_text("a label", label) for label in labels))
    for label in kept:
        if re.search(r"[\s,]", label):
            raise RelayqError(f"a label has no spaces or commas: {label!r}")
    return kept


def check_meta(meta: Mapping[str, str] | None) -> dict[str, str]:
    """Return a job's own facts: a text for each key."""
    for key, value in (meta or {}).items():
        if not isinstance(key, str) or not re.fullmatch(_WORD, key):
            raise RelayqError(f"a meta key has letters, digits, '.', '_' and '-' only: {key!r}")
        if not isinstance(value, str):
            raise RelayqError(f"meta {key} must be a text, not {value!r}")
    return dict(meta or {})


def check_text(what: str, text: str) -> str:
    """Return a short text on one line, or raise and say `what` it was to be."""
    if not isinstance(text, str) or not text or not text.isprintable():
        raise RelayqError(f"{what} is a printable text on one line, not {text!r}")
    if len(text) > LONGEST_TEXT:
        raise RelayqError(f"{what} has at most {LONGEST_TEXT} letters, not {len(text)}")
    return text


def read_filters(texts: Iterable[str]) -> dict[str, str]:
    """Return `key=value` texts as the filters that they are."""
    filters: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise RelayqError(f"a filter is KEY=VALUE, not {text!r}", hint=_KNOWN_FILTERS)
        if key in filters:
            raise RelayqError(f"two filters for {key}", hint="a value may have stars: 'a*'")
        filters[key] = value
    check_filters(filters)
    return filters


_KNOWN_FILTERS = f"filters: {', '.join(_FILTERS)}, meta.KEY; a value may have stars"


def check_filters(filters: Mapping[str, str]) -> None:
    """Raise for a filter that doesn't exist, and for a state that doesn't."""
    for key in filters:
        if key not in _FILTERS and not key.startswith("meta."):
            raise RelayqError(f"no such filter: {key}", hint=_KNOWN_FILTERS)
    if "state" in filters and not states_of(filters):
        names = ", ".join(JobState)
        raise RelayqError(f"no such state: {filters['state']}", hint=f"states: {names}")


def states_of(filters: Mapping[str, str]) -> list[JobState]:
    """Return the states that the filters let through."""
    return [state for state in JobState if fits(filters.get("state", "*"), state.value)]


def passes(record: JobRecord, filters: Mapping[str, str]) -> bool:
    """Tell whether a record has what each of the filters asks for."""
    return all(
        any(fits(pattern, value) for value in _values(record, key))
        for key, pattern in filters.items()
    )


def _values(record: JobRecord, key: str) -> list[str]:
    if key == "state":
        return [record.state.value]
    if key == "kind":
        return [record.kind]
    if key == "host":
        place = record.target.removeprefix("->")
        return [] if place == "-" else [place]
    spec: Any = record.spec
    if spec is None:
        return []
    if key == "label":
        return list(spec.labels)
    if key.startswith("meta."):
        value = spec.meta.get(key.removeprefix("meta."))
    else:
        value = getattr(spec, key)
    return [] if value is None else [value]
