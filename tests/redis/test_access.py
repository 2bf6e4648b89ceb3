"""What each role of the broker's users may do, and above all what not, on both sorts of Redis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from relayq import store as package
from relayq.dispatch import TEMPLATE
from relayq.errors import RelayqError
from relayq.model import access
from relayq.model.jobs import JobState
from relayq.store import Store, connect
from relayq.store.keys import PREFIX
from tests.conftest import RedisServer
from tests.redis.fleet import Clock, Fleet

#: A key of relayq's, so that the key is never the reason of a refusal.
KEY = f"{PREFIX}meta"
#: What gives away the machine, the data, the others' connections, or a look at all of them.
NEVER = f"""
ACL GETUSER default|ACL LIST|ACL LOG|ACL SETUSER mallory on|APPEND {KEY} x|BGREWRITEAOF|BGSAVE
CLIENT KILL TYPE normal|CLIENT LIST|CLIENT NO-EVICT on|CLIENT PAUSE 1|CLUSTER INFO|COMMAND
CONFIG GET *|CONFIG REWRITE|CONFIG SET maxmemory 1|COPY {KEY} {KEY}|DBSIZE|DEBUG SLEEP 0|DUMP {KEY}
EVAL return 0|FAILOVER|FLUSHALL|FLUSHDB|KEYS *|LASTSAVE|LATENCY RESET|MEMORY USAGE {KEY}
MIGRATE 127.0.0.1 1 {KEY} 0 1|MODULE LIST|MODULE LOAD x.so|MONITOR|OBJECT ENCODING {KEY}
PSUBSCRIBE *|PSYNC ? -1|PUBLISH any x|RANDOMKEY|RENAME {KEY} {KEY}|REPLICAOF 127.0.0.1 1
RESTORE {KEY} 0 x|ROLE|SAVE|SCRIPT FLUSH|SCRIPT KILL|SELECT 1|SHUTDOWN NOSAVE|SLAVEOF 127.0.0.1 1
SLOWLOG GET|SORT {KEY}|SUBSCRIBE any|SWAPDB 0 1|SYNC|TYPE {KEY}
"""
WORDS = [line.split() for line in NEVER.strip().replace("\n", "|").split("|")]
#: The scripts of workers alone.
OF_WORKERS = {"claim", "sweep"}
As = Callable[[str], redis.Redis]


@pytest.fixture(params=["redis7", "redis62"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """An empty server with a user of each role."""
    running: RedisServer = request.getfixturevalue(request.param)
    with running.connect() as owner:
        owner.flushdb()
        owner.acl_log_reset()
        for role in access.ROLES:
            words = access.rules(role, PREFIX)
            owner.execute_command("ACL", "SETUSER", role, "reset", "on", ">secret", *words)
        yield running
        owner.flushdb()
        owner.acl_deluser(*access.ROLES)


@pytest.fixture
def as_user(server: RedisServer) -> Iterator[As]:
    """Connect as a user, who is called as its role."""
    made: list[redis.Redis] = []

    def connected(role: str) -> redis.Redis:
        made.append(server.connect(username=role, password="secret"))
        return made[-1]

    yield connected
    for one in made:
        one.close()


def is_refused(client: redis.Redis, *words: Any) -> bool:
    """Try a command; tell whether it is one that its user may not give."""
    try:
        client.execute_command(*words)
    except redis.exceptions.NoPermissionError:
        return True
    except redis.exceptions.ResponseError as error:
        # In a script the whole script fails; two commands Redis 7 refuses to everybody.
        return bool(re.search("can't run this command|can't access|not allowed", str(error)))
    return False


@pytest.mark.parametrize("role", access.ROLES)
def test_no_role_has_what_gives_away_the_machine_or_others(as_user, role):
    client = as_user(role)

    assert [words for words in WORDS if not is_refused(client, *words)] == []


@pytest.mark.parametrize("role", access.ROLES)
def test_no_role_reaches_a_key_that_is_not_relayqs(as_user, role):
    client = as_user(role)

    assert is_refused(client, "GET", "other")
    assert is_refused(client, "MGET", KEY, "other")
    assert is_refused(client, "SET", "other", "x")
    assert is_refused(client, "XREAD", "STREAMS", "other", "0")


@pytest.mark.parametrize("role", [access.WORKER, access.CLIENT])
def test_a_script_may_be_loaded_and_do_no_more_than_who_calls_it(as_user, server, role):
    client = as_user(role)
    sums = [
        client.script_load(f"return redis.call({text})")
        for text in (f"'SET', '{KEY}', 1", "'SET', 'other', 1", "'FLUSHALL'", "'CONFIG','GET','*'")
    ]

    assert client.evalsha(sums[0], 0)
    assert [is_refused(client, "EVALSHA", one, 0) for one in sums[1:]] == [True] * 3
    with server.connect() as owner:
        assert owner.keys() == [KEY.encode()]


def test_the_dashboard_writes_nothing_and_runs_no_script(as_user):
    client = as_user(access.FLOWER)

    for words in (("SET", KEY, 1), ("DEL", KEY), ("LPUSH", f"{PREFIX}k:any", "x")):
        assert is_refused(client, *words)
    assert is_refused(client, "SCRIPT", "LOAD", "return 1")
    # Nor does it read what jobs were given, wrote, or were answered.
    for name in ("log:x", "artifact:x", "answer:x", "checkpoint:x", "input:x", "meta"):
        assert is_refused(client, "GET", f"{PREFIX}{name}")


def test_a_client_takes_nothing_that_is_a_workers(as_user):
    client = as_user(access.CLIENT)

    assert is_refused(client, "BLPOP", f"{PREFIX}control:pi4", 1)
    assert is_refused(client, "BRPOP", f"{PREFIX}k:any", 1)
    assert is_refused(client, "RPOP", f"{PREFIX}k:any")
    assert is_refused(client, "SCAN", 0)


@pytest.mark.parametrize("is_brief", [False, True])
def test_a_job_goes_from_a_client_to_a_worker_and_back(server, is_brief):
    def url(role: str) -> str:
        return f"unix://{role}:secret@{server.socket}"

    asks, works = connect(url(access.CLIENT), is_brief=is_brief), connect(url(access.WORKER))
    try:
        asking, working = Fleet(asks, Clock()), Fleet(works, Clock())
        host = working.host()
        id = asking.submit()
        with server.connect() as owner:
            # As after a restart: both load what they need.
            owner.script_flush()
        host.run(id)

        assert asking.record(id).state is JobState.SUCCEEDED
        assert asks.hosts.list(online_within=60)
        assert asks.events.read(count=10)
        asking.tick()
        for store in (asks, works):
            # What doctor asks is asked by who may.
            assert (store.server.settings(), store.server.clients()) == ({}, [])
            assert store.server.pauses(since=0) == {}
            assert store.server.fetch().run_id
        works.sweep.step(lease=60, template=TEMPLATE)
    finally:
        asks.close()
        works.close()
    with server.connect() as owner:
        assert Store(owner).access.refusals() == []


@pytest.mark.parametrize("is_brief", [False, True])
def test_who_may_not_is_told_so_and_who_would_know(server, is_brief):
    store = connect(f"unix://flower:secret@{server.socket}", is_brief=is_brief)

    with pytest.raises(RelayqError, match="doesn't allow its user this") as caught:
        store.jobs.cancel("nosuchjob000")

    store.close()
    assert "relayq broker users" in str(caught.value.hint)


def commands_of(path: Path) -> set[str]:
    return set(re.findall(r'\b(?:call|collect)\("([A-Z]+)"', path.read_text())) | set(
        re.findall(r'redis\.p?call\("([A-Z]+)"', path.read_text())
    )


def test_every_script_is_allowed_what_it_calls():
    scripts = sorted((Path(package.__file__).parent / "lua").glob("*.lua"))
    assert scripts
    for role, left_out in ((access.WORKER, set()), (access.CLIENT, OF_WORKERS)):
        allowed = {w[1:].upper() for w in access.rules(role, PREFIX) if w.startswith("+")}
        for path in scripts:
            if path.stem not in left_out:
                assert commands_of(path) <= allowed, (role, path.name)


def test_every_role_has_relayqs_keys_and_no_channel():
    for role in access.ROLES:
        keys = [word for word in access.rules(role, PREFIX) if word.startswith("~")]
        assert keys
        assert all(key.startswith(f"~{PREFIX}") for key in keys)
        assert not [word for word in access.rules(role, PREFIX) if word.startswith("&")]
