"""Job output and records full of escapes: no view gives them to a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from contextlib import suppress

import pytest

from relayq.cli.ssh import ADDRESS
from tests.system.conftest import ROOT

pytestmark = pytest.mark.system

#: Sets the title, writes the clipboard, asks for an answer, clears, turns text around, 8 bits.
EVIL = "\x1b]0;PWNED\x07\x1b]52;c;cm0=\x07\x1b[6n\x1b[2J\x1bc\u202ePWNED\x9b6n\r\n"
#: What relayq itself, or a job's colours, may send.
COLOUR = re.compile(r"\x1b\[[0-9;:]*m|\x1b\[[0-2]?K|\x1b\]8;[^;]*;\x1b\\")
DANGEROUS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

VIEWS = [
    "ps",
    "ps -a",
    "show {job}",
    "show {asking}",
    "why {job}",
    "why {waiting}",
    "show {broken}",
    "why {broken}",
    "logs {broken}",
    "logs {job}",
    "logs @evil",
    "result {job}",
    "review",
    "review {asking}",
    "events",
    "status",
    "hosts",
    "hosts show evil",
    "hosts show here",
    "caps",
    "stats",
    "schedule ls",
    "flow ls",
    "agent sessions",
    "agent ls",
    "broker users",
    "ssh --dry-run evil",
    "cancel {job}",
    "show PWNED\x1b[6n",
]


def said_by(facts):
    """Return facts of a host with every word of them replaced."""
    match facts:
        case str():
            return EVIL
        case list():
            return [said_by(one) for one in facts]
        case dict():
            return {name: said_by(one) for name, one in facts.items()}
    return facts


@pytest.fixture(scope="module")
def poisoned(shared_fleet, credential):
    """A fleet whose jobs and whose Redis say what an attacker has them say."""
    from relayq.store import connect

    store, job = connect(credential), shared_fleet.job
    octal = "".join(f"\\{byte:03o}" for byte in EVIL.encode())
    shout = f"printf '{octal}'; exit 3"
    done = job.run(shout, name="evil", group="evil", note=EVIL, meta={"evil": EVIL})
    done.wait(20)
    asking = job.run(f": {EVIL}", host="evil", wait_for_host=True)
    waiting = job.run("true", host="evil", wait_for_host=True)
    broken = job.run("true", host="evil", wait_for_host=True)
    key = store.keys
    facts = said_by(json.loads(store.connection.hget(key("host", "here"), "facts")))
    facts |= {"address": EVIL, "model": EVIL, "labels": [EVIL], "wake": {"mac": EVIL}}
    host = {"install": EVIL, "version": EVIL, "slots": "2", "facts": json.dumps(facts)}
    host |= {"labels": EVIL, "drained": "1", "drained_reason": EVIL, "reason": EVIL}
    connection = store.connection
    connection.hset(key("host", "evil"), mapping=host)
    connection.zadd(key("hosts"), {"evil": 1e10, EVIL: 1e10})
    connection.hset(key("host", EVIL), mapping=host)
    for one in (done, waiting, broken):
        connection.hset(key("job", one.id), mapping={"note": EVIL, "paused": EVIL})
    # Where a word belongs this makes a record that can't be read.
    words = dict.fromkeys(("reason", "host", "account"), EVIL)
    connection.hset(key("job", broken.id), mapping=words)
    question = {
        "state": "needs_human",
        "question": EVIL,
        "choices": json.dumps([EVIL]),
        "asked_at": "1",
    }
    connection.hset(key("job", asking.id), mapping=question)
    connection.zadd(key("state", "needs_human"), {asking.id: 1})
    for what in ("claimed", "refused", "paused", "halted", EVIL):
        fields = dict.fromkeys("hwsrqkcl", EVIL) | {"e": what, "j": done.id}
        connection.xadd(key("events"), fields)
    connection.hset(key("flow", EVIL), mapping={"name": EVIL, "who": EVIL, "created": "1"})
    connection.zadd(key("flows"), {EVIL: 1})
    connection.hset(key("session", "evil"), mapping=dict.fromkeys(("agent", "host", "cwd"), EVIL))
    connection.zadd(key("sessions"), {"evil": 1})
    connection.hset(key("schedule", EVIL), mapping={"signed": EVIL, "refused": EVIL, "who": EVIL})
    connection.zadd(key("schedules"), {EVIL: 1})
    yield {"job": done.id, "asking": asking.id, "waiting": waiting.id, "broken": broken.id}
    for name, suffix in (("host", "evil"), ("host", EVIL), ("session", "evil"), ("flow", EVIL)):
        connection.delete(key(name, suffix))
    for name in ("flows", "sessions", "schedules"):
        connection.delete(key(name))
    connection.zrem(key("hosts"), "evil", EVIL)
    connection.delete(key("schedule", EVIL))
    store.close()


#: Runs one command after the other, each with a line after it that says that it ended.
SEVERAL = """
import json, sys, traceback
from relayq.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except Exception:
        traceback.print_exc()
    print(f"{chr(10)}== end ==", flush=True)
"""


def environment(fleet) -> dict[str, str]:
    env = {**fleet.environ, "PYTHONPATH": str(ROOT), "RELAYQ_HOME": str(fleet.home)}
    return env | {"TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50"}


def piped(fleet, *words: str) -> str:
    """Return what a command writes into a pipe."""
    argv = [sys.executable, "-m", "relayq", *words]
    done = subprocess.run(
        argv, env=environment(fleet), stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    return done.stdout.decode("utf-8", "surrogateescape")


def on_terminal(fleet, commands: list[list[str]]) -> list[str]:
    """Return all that each of these commands writes to a terminal."""
    argv = [sys.executable, "-c", SEVERAL, json.dumps(commands)]
    master, slave = pty.openpty()
    process = subprocess.Popen(
        argv, env=environment(fleet), stdin=slave, stdout=slave, stderr=slave, cwd="/"
    )
    os.close(slave)
    said = b""
    # A terminal of which the last writer is gone gives an error on Linux, nothing elsewhere.
    with suppress(OSError):
        while select.select([master], [], [], 60)[0] and (more := os.read(master, 65_536)):
            said += more
    os.close(master)
    process.wait(20)
    return said.decode("utf-8", "surrogateescape").split("\r\n== end ==\r\n")


@pytest.fixture(scope="module")
def pages(shared_fleet, poisoned):
    """What each view shows on a terminal."""
    commands = [[word.format(**poisoned) for word in view.split(" ")] for view in VIEWS]
    return dict(zip(VIEWS, on_terminal(shared_fleet, commands), strict=False))


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_passes_an_escape_to_a_terminal(pages, view):
    text = pages[view]

    assert text.strip()
    assert "Traceback" not in text
    plain = COLOUR.sub("", text.replace("\x1b[?25h", "").replace("\x1b[?25l", ""))
    assert not DANGEROUS.findall(plain), repr(plain)


def test_output_into_a_pipe_is_byte_for_byte(shared_fleet, poisoned):
    assert piped(shared_fleet, "logs", poisoned["job"]) == EVIL
    for view in (("ps", "-a"), ("top",), ("events",)):
        assert not DANGEROUS.findall(piped(shared_fleet, *view))


def test_a_job_that_is_watched_on_a_terminal_sends_it_nothing_but_text(shared_fleet):
    script = "printf '\\033]52;c;cm0=\\007\\033[6n\\033[31mred\\033[0m'"

    text = on_terminal(shared_fleet, [["run", script]])[0]

    assert "\x1b[31mred\x1b[0m" in text
    assert "\x1b]52" not in text
    assert "\x1b[6n" not in text


@pytest.mark.parametrize(
    "said", ["-oProxyCommand=x", "a;b", "$(x)", "`x`", "a b", "ssh://a/b", "a\nb"]
)
def test_ssh_is_given_no_address_that_a_shell_could_read(said):
    assert ADDRESS.fullmatch("me@100.64.0.5")
    assert ADDRESS.fullmatch("fd00::1%eth0")
    assert not ADDRESS.fullmatch(said)
