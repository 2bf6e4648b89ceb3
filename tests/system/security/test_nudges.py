"""Messages in the workers' queues: whatever they say, they are a hint to look, and nothing more."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any

import pytest
import redis

from relayq.dispatch import message
from relayq.embedded.users import admin_url
from relayq.model.jobs import new_id
from tests.waiting import until

pytestmark = pytest.mark.system


def nudge(**changes: Any) -> dict[str, Any]:
    """Return a message as relayq sends it, changed."""
    return {**json.loads(message(new_id(), "run_command", "any")), **changes}


def signature(attacker) -> dict[str, Any]:
    """Return a call of Celery's that would submit a job, and sign it, if a worker made it."""
    return {
        "task": "relayq.run_command",
        "args": [],
        "kwargs": {"cmd": attacker.bait},
        "options": {},
        "subtask_type": None,
        "immutable": True,
    }


class Pwn:
    """What runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (self.command,)


def embedded(attacker, name: str, **headers: Any) -> dict[str, Any]:
    """Return a nudge after which Celery is to call something."""
    id = new_id()
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    embed[name] = [signature(attacker)]
    body = json.dumps([[id], {}, embed])
    return nudge(body=body, headers={"task": "relayq.run_command", "id": id, **headers})


def messages(attacker) -> dict[str, dict[str, Any]]:
    """Return what an attacker would try, by name."""
    pickled = base64.b64encode(pickle.dumps(Pwn(attacker.bait))).decode()
    code = {"body_encoding": "base64"}
    properties = {**nudge()["properties"], **code}
    call = json.dumps([[attacker.bait], {}, {}])
    word = json.dumps([[signature(attacker), [[]]], {}, {}])
    found = {
        "a pickle": nudge(
            body=pickled,
            properties=properties,
            **{"content-type": "application/x-python-serialize"},
        ),
        "a pickle said to be JSON": nudge(body=pickled, properties=properties),
        "YAML": nudge(
            body=f"!!python/object/apply:os.system ['{attacker.bait}']",
            **{"content-type": "application/x-yaml"},
        ),
        "a command for an id": nudge(body=call),
        "a payload": nudge(body=json.dumps([[], {"cmd": attacker.bait}, {}])),
        "an id that leads elsewhere": nudge(body=json.dumps([["../../x"], {}, {}])),
        "a task of somebody's": nudge(headers={"task": "os.system", "id": "x"}, body=call),
    }
    for task in ("celery.map", "celery.starmap", "celery.chain", "celery.group", "celery.chord"):
        found[task] = nudge(headers={"task": task, "id": new_id()}, body=word)
    for name in ("callbacks", "errbacks", "chain"):
        found[name] = embedded(attacker, name)
        found[f"{name}, no id"] = embedded(attacker, name, id=None, root_id=None)
        group = {
            "group": None,
            "root_id": None,
            "parent_id": None,
            "id": "",
            "replaced_task_nesting": 0,
        }
        found[f"{name}, empty id"] = embedded(attacker, name, **group)
    return found


def test_no_message_in_a_queue_makes_a_worker_run_anything(attacker):
    tried = messages(attacker)

    for one in tried.values():
        attacker.connection.lpush(attacker.key("nudges", "any"), json.dumps(one))
        attacker.connection.lpush(attacker.key("nudges", "host.here"), json.dumps(one))

    until(
        lambda: (
            not attacker.connection.exists(
                attacker.key("nudges", "any"), attacker.key("nudges", "host.here")
            )
        ),
        within=20,
        what="all of it to be taken",
    )
    attacker.got_nothing()
    assert attacker.fleet.worker.poll() is None


@pytest.mark.parametrize("name", ["callbacks", "errbacks", "chain"])
def test_a_nudge_calls_nothing_after_it(attacker, name):
    before = set(attacker.connection.zrange(attacker.key("ids"), 0, -1))

    for change in ({}, {"id": None, "root_id": None}, {"id": ""}):
        one = json.dumps(embedded(attacker, name, **change))
        attacker.connection.lpush(attacker.key("nudges", "any"), one)

    attacker.got_nothing()
    after = set(attacker.connection.zrange(attacker.key("ids"), 0, -1))
    assert len(after - before) == 1


def test_nobody_stops_a_worker_by_celerys_remote_control(attacker):
    call = {"method": "shutdown", "arguments": {}, "destination": None, "pattern": None}
    said = nudge(body=json.dumps(call), headers={"clock": 1, "expires": None})

    for channel in ("/0.celery.pidbox", "/{db}.celery.pidbox", "{rq}:k:/0.celery.pidbox"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            attacker.connection.execute_command("PUBLISH", channel, json.dumps(said))
    with redis.Redis.from_url(admin_url(attacker.fleet.config)) as admin:
        # Nor would anybody listen.
        assert admin.pubsub_channels("*") == []

    attacker.got_nothing()
    assert attacker.fleet.worker.poll() is None
