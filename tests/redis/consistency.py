"""What must hold in Redis at any moment, whatever happened: the data dictionary, made checkable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from relayq.model.jobs import JobState
from relayq.store import Store
from relayq.store.keys import KEYS

HELD = {JobState.RUNNING, JobState.LOST}


def problems(store: Store) -> list[str]:
    """Return what is wrong with a data set, in words."""
    records = {
        id: {name.decode(): value.decode() for name, value in raw.items()}
        for id, raw in _records(store).items()
    }
    return [
        *_undeclared_or_immortal(store, records),
        *_indices(store, records),
        *_queues(store, records),
        *_active(store, records),
        *_phases(records),
    ]


def _records(store: Store) -> dict[str, Mapping[bytes, bytes]]:
    ids = sorted(_suffixes(store, "job"))
    pipe = store.connection.pipeline(transaction=False)
    for id in ids:
        pipe.hgetall(store.keys("job", id))
    return dict(zip(ids, pipe.execute(), strict=True))


def _suffixes(store: Store, name: str) -> set[str]:
    start = store.keys(name)
    return {key.decode().removeprefix(start) for key in store.connection.keys(f"{start}*")}


def _undeclared_or_immortal(store: Store, records: Mapping[str, object]) -> Iterator[str]:
    keys = [key.decode() for key in store.connection.keys("*")]
    pipe = store.connection.pipeline(transaction=False)
    for key in keys:
        pipe.type(key).ttl(key)
    answers = iter(pipe.execute())
    for key, kind, ttl in zip(keys, answers, answers, strict=False):
        name, rest = _declared(store, key)
        if name is None:
            yield f"{key} isn't declared in KEYS"
            continue
        suffix, type_, meaning = KEYS[name]
        if kind.decode() != type_:
            yield f"{key} is a {kind.decode()}, declared as a {type_}"
        if ttl < 0 and ("TTL" in meaning or not {"permanent", "pruned"} & set(meaning.split())):
            yield f"{key} has no TTL, though it is declared: {meaning}"
        if ttl < 0 and meaning.endswith("pruned") and rest not in records:
            yield f"{key} is left over: there is no record"


def _declared(store: Store, key: str) -> tuple[str | None, str]:
    for name in KEYS:
        start = store.keys(name)
        if key == start or (start.endswith(":") and key.startswith(start)):
            return name, key.removeprefix(start)
    return None, ""


def _members(store: Store, name: str, suffix: str = "") -> set[str]:
    return {id.decode() for id in store.connection.zrange(store.keys(name, suffix), 0, -1)}


def _indices(store: Store, records: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for state in JobState:
        listed = _members(store, "state", state)
        actual = {id for id, record in records.items() if record.get("state") == state}
        if listed != actual:
            yield f"index {state} differs from the records by {listed ^ actual}"
    if unlisted := _members(store, "ids") ^ records.keys():
        yield f"ids differ from the records by {unlisted}"
    if unspecified := _suffixes(store, "spec") ^ records.keys():
        yield f"specs differ from the records by {unspecified}"
    for host in _suffixes(store, "by_host"):
        if forgotten := _members(store, "by_host", host) - records.keys():
            yield f"by_host of {host} still lists {forgotten}"


def _queues(store: Store, records: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    names = _suffixes(store, "queue") | {record["queue"] for record in records.values()}
    for name in sorted(names):
        listed = _members(store, "queue", name)
        actual = {
            id
            for id, record in records.items()
            if record["state"] == JobState.QUEUED and record["queue"] == name
        }
        if listed != actual:
            yield f"queue {name} differs from the queued records by {listed ^ actual}"


def _active(store: Store, records: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    held = {id: record for id, record in records.items() if record["state"] in HELD}
    for host in _suffixes(store, "active") | {record["host"] for record in held.values()}:
        rows = store.connection.smembers(store.keys("active", host))
        listed = {id.decode() for id in rows}
        actual = {id for id, record in held.items() if record["host"] == host}
        if listed != actual:
            yield f"active of {host} differs from the records by {listed ^ actual}"


def _phases(records: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for id, record in records.items():
        is_held = record["state"] in HELD
        if is_held != ("phase" in record):
            yield f"{id} is {record['state']} with phase {record.get('phase')}"
        if record["state"] == JobState.LOST and record.get("phase") != "started":
            yield f"{id} is lost, though it never started"
        if record.get("phase") == "claimed" and "started" in record:
            yield f"{id} is claimed, yet has the start of an earlier attempt"
