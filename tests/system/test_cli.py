"""The command line, as real commands against a real worker."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.system.commands import (
    SILENT,
    begin,
    begun,
    environ,
    relayq,
    shown,
    submit,
    until_exists,
)
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture
def cli(shared_fleet):
    """A fleet of one host, called here, that the environment points at."""
    return shared_fleet


def test_run_has_the_commands_own_streams_and_exit_code(cli):
    done = relayq("run", "echo out; echo err >&2; exit 3")

    assert done.returncode == 3
    assert done.stdout == "out\n"
    assert done.stderr.startswith("err\nrelayq: ")
    assert "failed: exit 3 after 0." in done.stderr
    assert done.stderr.endswith("s on here\n")


def test_run_says_nothing_of_a_success_and_nothing_at_all_when_quiet(cli):
    assert relayq("run", "echo hi").stderr == ""
    assert relayq("run", "-q", "exit 5").stderr == ""


def test_run_exits_as_a_shell_after_a_signal(cli):
    assert relayq("run", "kill -9 $$").returncode == 137


def test_run_exits_with_124_after_the_time_limit(cli):
    assert relayq("run", "--timeout", "0.3s", "sleep 60").returncode == 124


def test_several_arguments_are_a_program_that_no_shell_sees(cli):
    program = relayq("run", "--on", "here", "printf", "%s|", "a b", "$HOME", "--on", "-q")
    joined = relayq("run", "-s", "echo", "$((1+1))", ";", "exit 4")

    assert program.stdout == "a b|$HOME|--on|-q|"
    assert (joined.stdout, joined.returncode) == ("2\n", 4)


def test_run_passes_every_byte_on(cli, tmp_path):
    wanted = os.urandom(3_000_000)
    (tmp_path / "bytes").write_bytes(wanted)

    done = relayq("run", "cat", str(tmp_path / "bytes"), text=False)

    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(wanted).digest()


def test_the_job_gets_the_variables_that_were_asked_for(cli, monkeypatch):
    monkeypatch.setenv("FROM_HERE", "1")
    monkeypatch.setenv("UNASKED", "3")

    done = relayq("run", "-e", "FROM_HERE", "-e", "GIVEN=a=b", "echo $FROM_HERE $GIVEN $UNASKED.")

    assert done.stdout == "1 a=b .\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "the command is empty"),
        (["run", " "], "the command is empty"),
        (["run", "--onn", "x", "true"], "--on"),
        (["submit", "--timeout", "5x", "true"], "expected a duration"),
        (["run", "-e", "NOT_SET_ANYWHERE", "true"], "isn't set here"),
        (["frobnicate"], "no such command"),
    ],
)
def test_what_was_typed_wrong_exits_with_2(cli, arguments, said):
    done = relayq(*arguments)

    assert done.returncode == 2
    assert said in done.stderr


def test_an_unknown_job_or_host_exits_with_125_and_a_hint(cli):
    job, host = relayq("show", "zzzz"), relayq("run", "--on", "nowhere", "true")

    assert (job.returncode, host.returncode) == (125, 125)
    assert job.stderr == "relayq: no such job: zzzz\n  hint: relayq ps -a\n"
    assert "known hosts: here" in host.stderr


def test_an_error_is_json_when_json_was_asked_for(cli):
    done = relayq("show", "--json", "zzzz")

    assert json.loads(done.stdout)["error"]["code"] == "no_such_job"
    assert relayq("--json", "show", "zzzz").stdout == done.stdout
    assert done.returncode == 125


def test_submit_wait_and_logs(cli):
    id = submit("--name", "greeting", "echo out; echo err >&2; sleep 0.2; exit 6")

    assert relayq("wait", id).returncode == 6
    logs = relayq("logs", id)
    assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
    assert relayq("logs", "--tail", "1", id[:8]).stdout == ""
    assert relayq("logs", "-f", id).stdout == "out\n"
    assert "greeting: echo out" in relayq("ps", "--state", "failed").stdout
    assert "Next      relayq logs" in relayq("show", id).stdout


def test_wait_of_several_says_whether_one_failed(cli):
    good, bad = submit("true"), submit("exit 9")

    assert relayq("wait", good, good).returncode == 0
    assert relayq("wait", good, bad).returncode == 1


def test_wait_gives_up_with_75_and_the_job_goes_on(cli):
    id = submit("sleep 60")

    done = relayq("wait", "--timeout", "0.2s", id)

    assert done.returncode == 75
    assert f"{id} hasn't ended" in done.stderr
    cancelled = relayq("cancel", id)
    assert cancelled.stdout.startswith(f"{id}  cancelling on here ... ended after ")
    assert relayq("wait", id).returncode == 130


def test_cancel_of_what_waits_and_of_what_ended(cli):
    waiting = submit("--on", "nowhere", "--wait-for-host", "true")
    ended = submit("true")
    relayq("wait", ended)

    done = relayq("cancel", waiting, ended)

    assert done.stdout == f"{waiting}  cancelled\n{ended} is already succeeded\n"
    assert done.returncode == 1


def test_retry_makes_a_new_attempt(cli):
    id = submit("exit 1")
    relayq("wait", id)

    done = relayq("retry", id)

    assert done.stdout == f"{id}\n"
    assert relayq("wait", id).returncode == 1
    assert shown(id)["attempt"] == 2


def test_a_job_comes_after_another(cli):
    first = submit("sleep 0.3")
    second = submit("--after", first, "echo second")

    assert relayq("logs", "-f", second).stdout == "second\n"


def test_logs_follow_from_the_last_lines_on(cli, tmp_path):
    id = submit(f"echo one; echo two; {until_exists(tmp_path / 'go')}; echo three")
    until(lambda: "two" in relayq("logs", id).stdout, within=10, what="the first lines")

    command = begin("logs", "-f", "--tail", "1", id)
    assert command.stdout.readline() == "two\n"
    (tmp_path / "go").touch()

    rest, _ = command.communicate(timeout=30)
    assert rest == "three\n"


def test_status_shows_broker_and_hosts(cli):
    done = relayq("status")

    first, heading, host = done.stdout.splitlines()
    assert first.startswith(f"relayq 0.1.0 . broker 127.0.0.1:{cli.broker.port} (redis ")
    assert " . 1 of 1 host online . queue " in first
    assert heading.split()[:3] == ["HOST", "STATE", "SLOTS"]
    assert {"LOAD", "DONE/FAIL", "SEEN"} <= set(heading.split())
    assert host.startswith("here  online ")
    assert done.returncode == 0
    assert json.loads(relayq("status", "--json").stdout)["hosts"][0]["name"] == "here"


def test_status_of_a_broker_that_cant_be_reached_exits_with_4(cli, monkeypatch):
    monkeypatch.setenv("RELAYQ_BROKER__URL", "redis://:secret@127.0.0.1:1/0")

    done = relayq("status")

    assert done.returncode == 4
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_without_a_terminal_a_signal_ends_the_job(cli, number, tmp_path):
    pids = tmp_path / "pids"
    command = begin("run", f"sleep 61 & echo $! $$ > {pids}; echo begun; wait")
    assert command.stdout.readline() == "begun\n"

    command.send_signal(number)
    _, remarks = command.communicate(timeout=30)

    assert command.returncode == 130
    assert "cancelled on here" in remarks
    left = [int(pid) for pid in pids.read_text().split()]
    until(lambda: not any(map(runs, left)), what="the job's processes to be gone")


def runs(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_whose_reader_leaves_ends_quietly_and_its_job_too(cli):
    command = begin("run", "--name", "chatter", "yes")
    assert command.stdout.readline() == "y\n"

    command.stdout.close()

    assert command.wait(30) == 141
    assert command.stderr.read() == ""
    command.stderr.close()
    assert "chatter" in relayq("ps", "--state", "cancelled").stdout


def test_help_imports_neither_redis_nor_celery_nor_rich():
    code = "import sys; from relayq.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environ(), text=True, **SILENT)

    modules = {name.partition(".")[0] for name in done.stdout.split()}
    assert "click" in modules
    assert not modules & {"redis", "celery", "kombu", "rich", "yaml"}


def test_a_machine_on_which_nothing_runs_says_so_and_starts_nothing(home):
    for command, code in (("status", 4), ("ps", 125), ("logs", 125)):
        done = relayq(command, *(["1234"] if command == "logs" else []))

        assert done.returncode == code
        assert done.stderr.startswith("relayq: nothing runs here\n  hint: relayq up")
    assert not list(home.iterdir())
    assert relayq("down").stdout == "nothing ran here\n"


def test_down_refuses_while_a_job_runs_and_kills_it_when_told_so(home, monkeypatch):
    monkeypatch.setenv("RELAYQ_DEFAULTS__GRACE", "1")
    assert relayq("up").stdout.startswith("broker  127.0.0.1:")
    id = submit("setsid sleep 62 & sleep 63")
    begun(id)
    *_, queued = (submit("sleep 64") for _ in range(3))

    refused = relayq("down")
    assert refused.returncode == 1
    assert id in refused.stderr
    assert "relayq down --kill" in refused.stderr

    killed = relayq("down", "--kill")

    assert killed.returncode == 0, killed.stderr
    assert killed.stdout == "stopped: worker, private broker\n"
    assert not processes_of(home)
    # Nothing that waited was started, or lost; what was killed is known to be.
    relayq("broker", "start")
    assert shown(id)["state"] == "cancelled"
    assert shown(queued)["state"] == "queued"


def test_down_waits_for_what_runs_and_lets_nothing_begin(home):
    first = submit("sleep 5; echo done")
    begun(first)

    done = relayq("down", "--wait")

    assert done.returncode == 0, done.stderr
    assert not processes_of(home)
    relayq("up")
    assert relayq("logs", first).stdout == "done\n"
    assert shown(first)["attempt"] == 1


def test_a_stopped_worker_leaves_its_jobs_to_the_next(home, tmp_path):
    id = submit(f"{until_exists(tmp_path / 'go')}; echo done")
    begun(id)

    stopped = relayq("worker", "stop")

    assert stopped.stdout == "stopped: worker; 1 job left running (relayq up takes over)\n"
    assert relayq("status").returncode == 3
    (tmp_path / "go").touch()
    assert relayq("logs", "-f", id).stdout == "done\n"
    assert shown(id)["attempt"] == 1


def test_worker_once_runs_what_is_queued(home):
    relayq("broker", "start")
    env = {**environ(), "RELAYQ_BROKER__URL": broker_url(home)}
    id = relayq("submit", "echo once", env=env).stdout.strip()

    done = relayq("worker", "once", env=env)

    assert done.returncode == 0, done.stderr
    assert relayq("logs", id, env=env).stdout == "once\n"


def broker_url(home: Path) -> str:
    from relayq import config, embedded

    return embedded.broker_url(config.load({"RELAYQ_HOME": str(home)})) or ""


def processes_of(home: Path) -> list[str]:
    """Return the command lines of what still belongs to a home, jobs and shims included."""
    found = []
    for process in psutil.process_iter(["environ", "cmdline", "status"]):
        named = (process.info["environ"] or {}).get("RELAYQ_HOME") == str(home)
        line = " ".join(process.info["cmdline"] or [])
        sleeps = line in ("sleep 62", "sleep 63")
        if (named or str(home) in line or sleeps) and process.pid != os.getpid():
            found.append(line)
    return found
