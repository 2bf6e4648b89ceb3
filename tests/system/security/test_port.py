"""Network access to the broker's port, without a credential of the broker's."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from relayq.embedded.users import admin_url

pytestmark = pytest.mark.system

COMMANDS = [
    "INFO",
    "GET {rq}:meta",
    "KEYS *",
    "HGETALL {rq}:meta",
    "LPUSH {rq}:k:any x",
    "PUBLISH x y",
    "SUBSCRIBE x",
    "MONITOR",
    "CONFIG GET *",
    "CONFIG SET dir /tmp",
    "ACL LIST",
    "EVAL return(1) 0",
    "FLUSHALL",
    "SHUTDOWN NOSAVE",
    "REPLICAOF 127.0.0.1 1",
    "MODULE LIST",
    "DEBUG SLEEP 0",
    "SAVE",
    "CLIENT LIST",
]


@pytest.fixture(scope="module")
def place(shared_fleet):
    url = urlsplit(shared_fleet.broker.url)
    return "127.0.0.1", url.port


def said(place, *lines: str) -> list[bytes]:
    """Return the first line of each answer."""
    heard = []
    with socket.create_connection(place, 10) as connection, connection.makefile("rb") as answers:
        for line in lines:
            connection.sendall(f"{line}\r\n".encode())
            heard.append(answers.readline())
    return heard


def test_without_a_password_nothing_is_answered(place):
    heard = said(place, *COMMANDS)

    assert heard[0].startswith(b"-NOAUTH")
    assert all(line.startswith(b"-") for line in heard), heard
    for who in ("x", "default x", "admin x", "local local", "default ''"):
        [refused, still] = said(place, f"AUTH {who}", "GET {rq}:meta")
        assert refused.startswith(b"-WRONGPASS")
        assert still.startswith(b"-NOAUTH")


def test_a_web_page_can_say_nothing_to_redis(shared_fleet, place):
    for head in (b"POST / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n"):
        with socket.create_connection(place, timeout=5) as connection:
            connection.sendall(head + b"\r\nLPUSH {rq}:k:any x\r\nPING\r\n")
            said = b""
            while more := connection.recv(4096):
                said += more
        assert b"+PONG" not in said
    assert shared_fleet.job.run("echo well").get(timeout=20) == "well"


FORBIDDEN = [
    "CONFIG GET requirepass",
    "CONFIG SET dir /tmp",
    "ACL LIST",
    "ACL SETUSER evil on nopass ~* +@all",
    "MONITOR",
    "SHUTDOWN NOSAVE",
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "REPLICAOF 127.0.0.1 1",
    "MODULE LOAD /tmp/x.so",
    "DEBUG SLEEP 0",
    "SAVE",
    "BGSAVE",
    "CLIENT KILL TYPE normal",
    "CLIENT PAUSE 1000",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "FUNCTION LOAD x",
    "MIGRATE 127.0.0.1 1 x 0 1",
    "RESTORE x 0 x",
    "SWAPDB 0 1",
    "SELECT 1",
    "SET other x",
    "GET other",
    "PUBLISH x y",
    "SUBSCRIBE x",
]


def test_a_workers_credential_gives_no_more_than_its_jobs_need(place, attacker):
    url = urlsplit(attacker.url)
    _, *heard = said(place, f"AUTH {url.username} {url.password}", *FORBIDDEN)

    assert heard[0].startswith(b"-NOPERM")
    assert all(line.startswith(b"-") for line in heard), heard
    attacker.got_nothing()


def test_a_workers_secret_is_no_other_users(shared_fleet, place, credential):
    owner = urlsplit(admin_url(shared_fleet.config))
    stolen = urlsplit(credential)
    assert owner.username == "admin"

    for name in ("admin", "local", "default"):
        [refused] = said(place, f"AUTH {name} {stolen.password}")
        assert refused.startswith(b"-WRONGPASS")
