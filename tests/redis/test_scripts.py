"""The scripts: called by keyword, declared in their headers, and their errors made relayq's."""

import re
from importlib import resources

import pytest
import redis

from relayq.errors import BrokerUnavailable
from relayq.store import connect
from relayq.store.keys import KEYS, Keys
from relayq.store.scripts import Scripts, broker_errors

LUA = sorted(
    (path for path in (resources.files("relayq.store") / "lua").iterdir()),
    key=lambda path: path.name,
)
#: What others use: it has no arguments of its own.
SHARED = ("prelude", "stands", "parents", "ends", "verdict", "forgetting", "again")
VERBS = [path for path in LUA if path.name.removesuffix(".lua") not in SHARED]


def name_of(path):
    return path.name.removesuffix(".lua")


@pytest.mark.parametrize("path", VERBS, ids=name_of)
def test_a_script_says_what_it_does_and_returns(path):
    text = path.read_text()

    assert text.startswith(f"-- {name_of(path)}: ")
    assert re.search(r"^-- args: offset( \w+)*$", text, re.MULTILINE)
    assert re.search(r"^-- Returns  ", text, re.MULTILINE)


@pytest.mark.parametrize("path", LUA, ids=name_of)
def test_a_script_uses_declared_keys_only_and_never_scans(path):
    text = path.read_text()

    assert set(re.findall(r"\bK\.(\w+)", text)) <= KEYS.keys()
    assert not re.findall(r'"(KEYS|SCAN|HSCAN|SSCAN|ZSCAN)"', text)


def test_each_shared_file_is_used_and_comes_before_its_users():
    used = {name for path in LUA for name in re.findall(r"^-- uses: (.+)$", path.read_text(), re.M)}

    assert {"prelude", *" ".join(used).split()} == set(SHARED)


def test_all_keys_share_one_hash_tag():
    keys = Keys()

    assert {re.match(r"\{\w+\}", keys(name, "x"))[0] for name in KEYS} == {"{rq}"}


def test_no_key_name_begins_another():
    starts = [suffix for suffix, _, _ in KEYS.values()]

    clashes = [(a, b) for a in starts for b in starts if a != b and b.startswith(a)]
    assert not [(a, b) for a, b in clashes if a.endswith(":")]


def test_every_key_says_who_deletes_it():
    words = ("permanent", "pruned", "TTL", "; until ")

    assert not [name for name, (_, _, meaning) in KEYS.items() if not _has(meaning, words)]


def _has(meaning, words):
    return any(word in meaning for word in words)


@pytest.fixture
def scripts(store, clock):
    return Scripts(store.connection, store.keys, clock)


def test_a_missing_or_surplus_argument_is_refused_by_name(scripts):
    with pytest.raises(TypeError, match="cancel takes"):
        scripts.call("cancel")
    with pytest.raises(TypeError, match="cancel takes"):
        scripts.call("cancel", id="x", colour="red")


def test_a_script_is_loaded_again_after_redis_forgot_it(scripts, store):
    assert scripts.call("cancel", ["nosuchjob000"], who="") == [b"gone", b""]
    store.connection.script_flush()

    assert scripts.call("cancel", ["nosuchjob000"], who="") == [b"gone", b""]


def test_two_data_sets_do_not_see_each_other(fleet, store):
    fleet.submit(id="abc100000000")
    other = Keys("{other}:")

    assert store.connection.keys(f"{other('job')}*") == []
    assert all(key.startswith(store.keys.prefix.encode()) for key in store.connection.keys("*"))


def test_a_broker_that_cannot_be_reached_is_a_connection_error():
    nowhere = connect("redis://127.0.0.1:1/0", patience=0.5)

    with pytest.raises(BrokerUnavailable, match="can't reach the broker") as caught:
        nowhere.jobs.count()

    assert isinstance(caught.value, ConnectionError)
    nowhere.close()


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (redis.exceptions.AuthenticationError("WRONGPASS"), "refuses the password"),
        (redis.exceptions.TimeoutError("timed out"), "can't reach"),
        (redis.exceptions.BusyLoadingError("loading the dataset"), "can't reach"),
        (redis.exceptions.OutOfMemoryError("used memory > 'maxmemory'"), "takes no new work"),
        (redis.exceptions.ResponseError("... -OOM command not allowed"), "takes no new work"),
        (redis.exceptions.ResponseError("MISCONF Errors writing"), "takes no new work"),
    ],
)
def test_what_redis_says_becomes_one_error_of_ours(raised, said):
    with pytest.raises(BrokerUnavailable, match=said), broker_errors():
        raise raised


def test_a_mistake_of_our_own_is_not_taken_for_an_outage():
    with pytest.raises(redis.exceptions.ResponseError), broker_errors():
        raise redis.exceptions.ResponseError("ERR wrong number of arguments")
