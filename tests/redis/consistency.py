"""What must hold in Redis at any moment, whatever happened: the data dictionary, made checkable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from relayq.model.jobs import JobState
from relayq.store import Store
from relayq.store.keys import KEYS

HELD = {JobState.RUNNING, JobState.LOST}
#: Index -> the field of a record that says where the job belongs there. The registry has no jobs.
WORDS = {"name": "name", "group": "group", "companions": "with"}
INDICES = (
    *("ids", "state", "queue", "by_host", "active", "overflow", "expiring"),
    *WORDS,
)
#: What is about jobs that come after others, or end with them.
OF_MANY = ("dependents", "halted", "flows")
#: States before a claim.
UNCLAIMED = {JobState.WAITING, JobState.SCHEDULED, JobState.QUEUED}


def problems(store: Store) -> list[str]:
    """Return what is wrong with a data set, in words."""
    found, broken = _read(store)
    return [
        *broken,
        *_left_over(found),
        *_indices(found),
        *_queues(found),
        *_beside(found),
        *_in_time(found),
        *_active(found),
        *_names(found),
        *_unique(found),
        *_waits(found),
        *_halts(found),
        *_flows(found),
        *_phases(found),
        *_agents(store, found),
    ]


@dataclass
class Found:
    """A data set as it was found: records by id, index members by name and suffix."""

    records: dict[str, Mapping[str, str]] = field(default_factory=dict)
    members: dict[str, dict[str, set[str]]] = field(
        default_factory=lambda: {name: {} for name in (*INDICES, "queues", *OF_MANY)}
    )
    #: unique key -> the job that has it
    holders: dict[str, str] = field(default_factory=dict)
    #: key -> (name, suffix) of those that live as long as their record
    pruned: dict[str, tuple[str, str]] = field(default_factory=dict)


def _read(store: Store) -> tuple[Found, list[str]]:
    """Read everything in two round trips after the list of keys."""
    keys = [key.decode() for key in store.connection.keys("*")]
    pipe = store.connection.pipeline(transaction=False)
    for key in keys:
        pipe.type(key).ttl(key)
    answers = pipe.execute()
    found, broken, wanted = Found(), [], []
    pipe = store.connection.pipeline(transaction=False)
    for key, type_, ttl in zip(keys, answers[::2], answers[1::2], strict=True):
        name, suffix = _declared(store, key)
        complaint = _complaint(key, name, type_.decode(), ttl)
        if complaint:
            broken.append(complaint)
            continue
        if KEYS[name][2].endswith("pruned") and ttl < 0:
            found.pruned[key] = (name, suffix)
        if name == "job":
            pipe.hgetall(key)
        elif name == "unique":
            pipe.get(key)
        elif name in found.members:
            if type_ == b"set":
                pipe.smembers(key)
            else:
                pipe.zrange(key, 0, -1)
        else:
            continue
        wanted.append((name, suffix))
    for (name, suffix), content in zip(wanted, pipe.execute(), strict=True):
        _keep(found, name, suffix, content)
    return found, broken


def _keep(found: Found, name: str, suffix: str, content: Any) -> None:
    if name == "job":
        found.records[suffix] = {k.decode(): v.decode() for k, v in content.items()}
    elif name == "unique":
        found.holders[suffix] = content.decode()
    else:
        found.members[name][suffix] = {id.decode() for id in content}


def _declared(store: Store, key: str) -> tuple[str, str]:
    for name in KEYS:
        start = store.keys(name)
        if key == start or (start.endswith(":") and key.startswith(start)):
            return name, key.removeprefix(start)
    return "", ""


def _complaint(key: str, name: str, type_: str, ttl: int) -> str:
    if not name:
        return f"{key} isn't declared in KEYS"
    _, declared, meaning = KEYS[name]
    if type_ != declared:
        return f"{key} is a {type_}, declared as a {declared}"
    stays = {"permanent", "pruned", "until"} & set(meaning.split())
    if ttl < 0 and ("TTL" in meaning or not stays):
        return f"{key} has no TTL, though it is declared: {meaning}"
    return ""


def _left_over(found: Found) -> Iterator[str]:
    for key, (_, id) in found.pruned.items():
        if id not in found.records:
            yield f"{key} is left over: there is no record"


def _indices(found: Found) -> Iterator[str]:
    for state in JobState:
        listed = found.members["state"].get(state, set())
        actual = {id for id, record in found.records.items() if record.get("state") == state}
        if listed != actual:
            yield f"index {state} differs from the records by {listed ^ actual}"
    if unlisted := found.members["ids"].get("", set()) ^ found.records.keys():
        yield f"ids differ from the records by {unlisted}"
    specs = {suffix for name, suffix in found.pruned.values() if name == "spec"}
    if unspecified := specs ^ found.records.keys():
        yield f"specs differ from the records by {unspecified}"
    for host, ids in found.members["by_host"].items():
        if forgotten := ids - found.records.keys():
            yield f"by_host of {host} still lists {forgotten}"


def _queues(found: Found) -> Iterator[str]:
    registry = found.members["queues"].get("", set())
    queued: dict[str, set[str]] = {name: set() for name in found.members["queue"]}
    for id, record in found.records.items():
        if record["state"] == JobState.QUEUED:
            queued.setdefault(record["queue"], set()).add(id)
    for name, actual in queued.items():
        listed = found.members["queue"].get(name, set())
        if listed != actual:
            yield f"queue {name} differs from the queued records by {listed ^ actual}"
        if actual and name.startswith("needs.") and name not in registry:
            yield f"queue {name} isn't in the registry"
    for name in registry:
        if not name.startswith("needs."):
            yield f"the registry has {name}"


def _beside(found: Found) -> Iterator[str]:
    """Whether each queued job that goes with another one waits for that one's host."""
    for id, record in found.records.items():
        if "with" not in record or record["state"] != JobState.QUEUED:
            continue
        leader = found.records.get(record["with"], {})
        queue = f"with.{record['with']}"
        if "host" in leader:
            queue = record["narrow"].replace("HOST", leader["host"])
        elif not leader or JobState(leader["state"]).is_final:
            yield f"{id} waits for the host of {record['with']}, which has none"
        if record["queue"] != queue:
            yield f"{id} is on {record['queue']} instead of {queue}"


def _in_time(found: Found) -> Iterator[str]:
    """Whether time will act on the jobs that it is to act on, and on no others."""
    widening = {id for id, r in found.records.items() if r["state"] == "queued" and "widens" in r}
    if wrong := widening ^ found.members["overflow"].get("", set()):
        yield f"overflow differs from the records by {wrong}"
    expiring = {
        id
        for id, r in found.records.items()
        if "expires" in r and "attempt" not in r and r["state"] in UNCLAIMED
    }
    if wrong := expiring ^ found.members["expiring"].get("", set()):
        yield f"expiring differs from the records by {wrong}"
    for id, record in found.records.items():
        if "widens" in record and record["state"] != JobState.QUEUED:
            yield f"{id} is {record['state']} and is still to widen"


def _active(found: Found) -> Iterator[str]:
    held: dict[str, set[str]] = {name: set() for name in found.members["active"]}
    for id, record in found.records.items():
        if record["state"] in HELD:
            held.setdefault(record["host"], set()).add(id)
    for host, actual in held.items():
        listed = found.members["active"].get(host, set())
        if listed != actual:
            yield f"active of {host} differs from the records by {listed ^ actual}"


def _names(found: Found) -> Iterator[str]:
    for index, field_ in WORDS.items():
        named: dict[str, set[str]] = {}
        for id, record in found.records.items():
            # Nothing stays of a job, but the name that others know it by.
            is_left = index == "companions" and record.get(field_) not in found.records
            if field_ in record and not is_left:
                named.setdefault(record[field_], set()).add(id)
        listed = found.members[index]
        for word in named.keys() | listed.keys():
            if wrong := named.get(word, set()) ^ listed.get(word, set()):
                yield f"{index} {word} differs from the records by {wrong}"


def _unique(found: Found) -> Iterator[str]:
    wanting = {
        (record["unique"], id)
        for id, record in found.records.items()
        if "unique" in record and not JobState(record["state"]).is_final
    }
    if wrong := wanting ^ set(found.holders.items()):
        yield f"unique keys differ from the records by {wrong}"


def _waits(found: Found) -> Iterator[str]:
    """Whether each waiting job is named by as many jobs as it waits for, and these will end."""
    named: dict[str, list[str]] = {}
    for parent, edges in found.members["dependents"].items():
        for edge in edges:
            named.setdefault(edge.replace("~", ""), []).append(parent)
    for id, record in found.records.items():
        if record["state"] != JobState.WAITING:
            has_ended = JobState(record["state"]).is_final
            if not has_ended and (wrong := {"waits", "fails", "skips"} & record.keys()):
                yield f"{id} is {record['state']}, and yet has {wrong}"
            continue
        parents = named.get(f"+{id}" if "fanned" in record else id, [])
        if int(record["waits"]) != len(parents) or not parents:
            yield f"{id} waits for {record['waits']} jobs, and is named by {parents}"
        for parent in parents:
            state = found.records.get(parent, {}).get("state", "gone")
            if state == "gone" or JobState(state).is_final:
                yield f"{id} waits for {parent}, which is {state}"


def _halts(found: Found) -> Iterator[str]:
    for id, record in found.records.items():
        for name in record.get("halts", "").split():
            if id not in found.members["halted"].get(name, set()):
                yield f"{id} isn't among those of the halt {name}"
    for name, members in found.members["halted"].items():
        for id in members:
            if name not in found.records.get(id, {}).get("halts", "").split():
                yield f"{id} is among those of the halt {name}"


def _flows(found: Found) -> Iterator[str]:
    for id in found.members["flows"].get("", set()):
        if not found.members["group"].get(f"flow-{id}"):
            yield f"the workflow's run {id} is kept without jobs"


def _phases(found: Found) -> Iterator[str]:
    for id, record in found.records.items():
        is_held = record["state"] in HELD
        if is_held != ("phase" in record):
            yield f"{id} is {record['state']} with phase {record.get('phase')}"
        if record["state"] == JobState.LOST and record.get("phase") != "started":
            yield f"{id} is lost, though it never started"
        if record.get("phase") == "claimed" and "started" in record:
            yield f"{id} is claimed, yet has the start of an earlier attempt"


def _agents(store: Store, found: Found) -> Iterator[str]:
    """Accounts in use, questions that stand, and replies, against the records."""
    held = {id: record for id, record in found.records.items() if record["state"] in HELD}
    used: dict[str, set[str]] = {}
    for id, record in held.items():
        if "account" in record:
            used.setdefault(record["account"], set()).add(id)
    keys = [store.keys.parts(key.decode()) for key in store.connection.keys("*account_active:*")]
    for name in {*used, *(suffix for _, suffix in keys)}:
        members = store.connection.smembers(store.keys("account_active", name))
        if differs := {id.decode() for id in members} ^ used.get(name, set()):
            yield f"active of account {name} differs from the records by {differs}"
    asking = {id for id, record in held.items() if "asks" in record and "question" in record}
    listed = {id.decode() for id in store.connection.zrange(store.keys("asking"), 0, -1)}
    if differs := listed ^ asking:
        yield f"asking differs from the records by {differs}"
    for id, record in found.records.items():
        if "asks" in record and id not in held:
            yield f"{id} is {record['state']}, and yet asks"
        may_ask = record["state"] in {*HELD, JobState.NEEDS_HUMAN}
        if "question" in record and not may_ask:
            yield f"{id} is {record['state']} with a question"
