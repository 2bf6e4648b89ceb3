"""hosts, stats, top, ssh and status, as real commands against a real worker."""

from __future__ import annotations

import json
import os
import re
import signal
import sys

import pytest

from tests.system.commands import Terminal, begin, relayq, submit
from tests.waiting import until

pytestmark = pytest.mark.system

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def cli(shared_fleet):
    """A fleet of one host, called here, that the environment points at."""
    return shared_fleet


def answer(*arguments: str):
    done = relayq(*arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def here():
    [host] = [host for host in answer("hosts")["hosts"] if host["name"] == "here"]
    return host


def stranger(cli, name: str, *, is_online: bool = False) -> None:
    """Have a host registered that no worker speaks for."""
    from relayq.store.leases import Registration

    store = cli.relay.session().store
    word, _ = store.hosts.register(
        Registration(name, f"install of {name}", "boot", "session"),
        lease=6.0,
        key_id=store.key_id() or "",
        slots=1,
        version="0",
        facts={"os": "linux", "capabilities": []},
    )
    assert word == "ok"
    if not is_online:
        store.connection.hset(store.keys("host", name), "stopped", "1")


def test_a_host_tells_what_it_has(cli):
    shown = answer("hosts", "show", "here")

    assert shown["state"].startswith("online")
    assert "kind:run_command" in shown["capabilities"]
    assert shown["facts"]["cpus"] == len(os.sched_getaffinity(0))
    until(
        lambda: here()["facts"]["tools"].get("git"),
        within=30,
        what="the versions of the tools, asked in the background",
    )
    assert "git" in here()["capabilities"]
    text = relayq("hosts", "show", "here").stdout
    assert text.startswith("here  online")
    assert re.search(r"^  Tools +.*git \d", text, re.MULTILINE)


def test_status_and_hosts_have_a_row_for_each(cli):
    stranger(cli, "gone")

    status, listed = relayq("status"), relayq("hosts")

    assert status.returncode == 0
    assert status.stdout.startswith("relayq ")
    for text in (status.stdout, listed.stdout):
        assert re.search(r"^gone +offline", text, re.MULTILINE)
        assert re.search(r"^here +online", text, re.MULTILINE)
    template = relayq("hosts", "ls", "--format", "{{.name}}:{{.online}}").stdout.splitlines()
    assert template == ["gone:false", "here:true"]
    assert relayq("hosts", "rm", "gone").returncode == 0


def test_status_tells_broker_queue_and_counts(cli):
    shown = answer("status")

    assert shown["broker"]["aof"] is True
    assert 0 < shown["broker"]["latency"] < 5
    assert shown["jobs"]["queued"] == shown["queued"]
    assert shown["hosts"][0]["last_day"].keys() == {"succeeded", "failed"}


def test_labels_are_given_and_taken(cli):
    assert answer("hosts", "label", "here", "+heavy", "+quick")["labels"] == ["heavy", "quick"]
    assert relayq("hosts", "label", "here", "-heavy").stdout == "here  labels: quick\n"
    assert here()["labels"] == ["quick"]
    assert answer("hosts", "label", "here", "=quick", "=heavy")["labels"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [("heavy", "expected +heavy or -heavy"), ("+He avy", "expected a label"), ("+", "a label")],
)
def test_what_is_no_label_is_an_error_of_usage(cli, change, said):
    done = relayq("hosts", "label", "here", change)

    assert done.returncode == 2
    assert said in done.stderr


def test_a_drained_host_runs_nothing_new_until_it_is_undrained(cli):
    assert answer("hosts", "drain", "here", "--reason", "a new disk")["running"] == 0
    id = submit("echo drained")
    shown = here()
    assert (shown["state"], shown["reason"]) == ("drained", "a new disk")
    assert shown["drained_at"] is not None
    assert relayq("wait", "--timeout", "1.5s", id).returncode == 75
    told = relayq("submit", "--on", "here", "true").stderr
    assert told == "relayq: here is drained (a new disk); the job waits\n"

    assert answer("hosts", "undrain", "here")["was_drained"] is True

    assert relayq("wait", id).returncode == 0
    assert answer("hosts", "undrain", "here")["was_drained"] is False
    what = [event["what"] for event in answer("events")["events"] if event["host"] == "here"]
    assert {"drained", "undrained"} <= set(what)


def test_a_drain_outlives_the_worker(cli):
    relayq("hosts", "drain", "here")
    cli.end_worker(signal.SIGKILL)
    cli.start_worker()

    assert here()["state"] == "drained"

    relayq("hosts", "undrain", "here")
    assert relayq("run", "--on", "here", "true").returncode == 0


def test_jobs_follow_a_host_to_its_new_name(cli):
    stranger(cli, "old")
    id = submit("--on", "old", "echo moved")
    later = submit("--on", "old", "--in-time", "1h", "true")
    stranger(cli, "new", is_online=True)

    assert set(answer("hosts", "rename", "old", "new")["moved"]) == {id, later}

    assert answer("show", id)["queue"] == "host.new"
    names = {host["name"]: host["aliases"] for host in answer("hosts")["hosts"]}
    assert names["new"] == ["old"]
    assert "old" not in names
    assert answer("hosts", "show", "old")["name"] == "new"
    relayq("cancel", id, later)
    until(lambda: relayq("hosts", "rm", "new").returncode == 0, within=20, what="new to be gone")


def test_a_host_that_is_there_is_neither_renamed_nor_forgotten(cli):
    stranger(cli, "other")

    renamed, removed = relayq("hosts", "rename", "here", "other"), relayq("hosts", "rm", "here")

    assert (renamed.returncode, removed.returncode) == (125, 125)
    assert "here is online" in renamed.stderr
    assert "hint: there: worker.name: other in config.yml" in renamed.stderr
    assert "here is online" in removed.stderr
    assert relayq("hosts", "rm", "other").stdout == "other  forgotten\n"


@pytest.mark.parametrize(
    "arguments", [["show"], ["drain"], ["undrain"], ["rm"], ["label"], ["rename"]]
)
def test_a_host_that_nobody_knows_is_an_error_with_those_that_are_known(cli, arguments):
    more = {"label": ["+x"], "rename": ["here"]}.get(arguments[0], [])
    done = relayq("hosts", *arguments, "nowhere", *more)

    assert done.returncode == 125
    assert "no such host: nowhere (known hosts:" in done.stderr
    assert "hint: relayq hosts" in done.stderr


def test_stats_count_what_was_done(cli):
    before = answer("stats")["total"]
    relayq("run", "true")
    relayq("run", "exit 3")

    after = answer("stats", "--by", "kind", "--since", "1d")

    assert after["total"]["succeeded"] == before["succeeded"] + 1
    assert after["total"]["failed"] == before["failed"] + 1
    assert [row["kind"] for row in after["kinds"]] == ["run_command"]
    assert after["total"]["mean_duration"] > 0
    text = relayq("stats").stdout
    assert text.split()[:3] == ["HOST", "DONE", "FAILED"]
    assert re.search(r"^here +\d+ +\d+", text, re.MULTILINE)


def test_ssh_goes_to_the_address_that_the_host_has(cli, tmp_path):
    dry = relayq("ssh", "--dry-run", "-t", "here", "ls", "-l", "a b")
    assert dry.stdout == "ssh -t -- here ls -l 'a b'\n"

    fake = tmp_path / "bin" / "ssh"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 7\n')
    fake.chmod(0o755)
    environ = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    (cli.home / "config.yml").write_text("hosts: {here: {address: me@100.64.0.5, aliases: [h]}}\n")
    try:
        called = relayq("ssh", "h", "uptime", env={**environ, "PYTHONPATH": sys.path[0] or "."})
    finally:
        (cli.home / "config.yml").unlink()

    assert (called.returncode, called.stdout) == (7, "--|me@100.64.0.5|uptime|")


def test_top_draws_hosts_and_jobs_until_q(cli):
    id = submit("--name", "steady", "sleep 60")
    terminal = Terminal("top", "--every", "300ms", columns=100)
    terminal.sees("steady")
    terminal.sees("here")

    terminal.type("q")

    assert terminal.finish() == 0
    lines = ESCAPES.sub("", terminal.seen).splitlines()
    assert any("1 active" in line for line in lines)
    # The screen is given back: the alternate one was entered and left.
    assert "\x1b[?1049h" in terminal.seen
    assert "\x1b[?1049l" in terminal.seen
    relayq("cancel", id)


def test_top_is_interrupted_like_anything_else(cli):
    terminal = Terminal("top", columns=60)
    terminal.sees("here")

    terminal.type("\x03")

    assert terminal.finish() == 0


def test_top_without_a_terminal_is_one_look(cli):
    done = relayq("top")

    assert done.returncode == 0
    assert re.search(r"^here +online", done.stdout, re.MULTILINE)


def test_top_as_json_is_a_line_for_each_look(cli):
    with begin("top", "--json", "-d", "200ms") as process:
        looks = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0

    assert all(look["schema"] == 1 and "records" in look for look in looks)


def test_a_new_tool_is_published_without_a_restart(cli, tmp_path, monkeypatch):
    cli.end_worker()
    tools = tmp_path / "tools"
    tools.mkdir()
    path = f"{tools}:{os.environ['PATH']}"
    # A look every five minutes is too seldom to wait for.
    program = "import relayq.worker as w; w._LOOK_EVERY = 0.5; import sys; sys.exit(w.main())"
    cli.start_worker("-c", program, PATH=path)
    assert "handbrake" not in here()["capabilities"]

    (tools / "HandBrakeCLI").write_text("#!/bin/sh\necho HandBrake 1.8.2\n")
    (tools / "HandBrakeCLI").chmod(0o755)

    until(lambda: "handbrake" in here()["capabilities"], within=20, what="the tool to be offered")
    assert here()["facts"]["tools"]["handbrake"] == "1.8.2"
