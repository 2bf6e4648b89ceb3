"""Completion, in the real shells, and without a word to the broker."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from relayq.model.jobs import JobState

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
ID, OTHER = "3f2a8c5dq1wz", "7c19xk0m4n2p"
KNOWN = {
    "hosts": ["mac-mini", "pi4"],
    "jobs": [
        {"id": ID, "what": "running  make nightly", "name": "nightly", "group": "g7"},
        {"id": OTHER, "what": "failed  a:b, c; d", "name": "", "group": "g7"},
    ],
    "agents": ["claude", "codex"],
    "sessions": [{"id": "5c1a", "what": "claude  pi4:/home/x"}],
}


def environ(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def relayq(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relayq", *arguments],
        env=environ(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def completed(*words: str, **variables: str) -> list[str]:
    """Return what the last word may become, as bash would ask for it."""
    asked = {"_RELAYQ_COMPLETE": "bash_complete", "COMP_WORDS": "\n".join(["relayq", *words])}
    done = relayq(COMP_CWORD=str(len(words)), **asked, **variables)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def known(home):
    """A home that remembers two jobs and two hosts."""
    (home / "cache").mkdir()
    (home / "cache" / "completion.json").write_text(json.dumps(KNOWN))
    return home


@pytest.fixture
def path(tmp_path):
    """A PATH on which the command is called relayq."""
    command = tmp_path / "bin" / "relayq"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m relayq "$@"\n')
    command.chmod(0o755)
    return f"{command.parent}:{os.environ['PATH']}"


@contextmanager
def counted() -> Iterator[tuple[int, list[object]]]:
    """Listen on a port; yields it and everybody who connected."""
    met: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def meet() -> None:
            while True:
                try:
                    met.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=meet, daemon=True).start()
        yield server.getsockname()[1], met
        server.shutdown(socket.SHUT_RDWR)


def test_hosts_jobs_names_and_groups_complete(known):
    everything = ["plain,last", f"plain,{ID}", f"plain,{OTHER}", "plain,nightly", "plain,@g7"]

    assert completed("show", "") == everything
    assert completed("show", "3f") == [f"plain,{ID}"]
    assert completed("cancel", ID, "nig") == ["plain,nightly"]
    assert completed("logs", "-f", "7c") == [f"plain,{OTHER}"]
    assert completed("run", "--on", "") == ["plain,mac-mini", "plain,pi4"]
    assert completed("submit", "--on", "p") == ["plain,pi4"]


def test_agents_and_their_sessions_complete(known):
    assert completed("agent", "run", "c") == ["plain,claude", "plain,codex"]
    assert completed("agent", "run", "claude", "3") == []
    assert completed("agent", "run", "--agent", "co") == ["plain,codex"]
    assert completed("agent", "run", "--session", "") == ["plain,5c1a"]
    assert completed("agent", "login", "pi4", "cl") == ["plain,claude"]


def test_a_group_completes_in_bash_which_takes_the_at_for_a_word(known):
    assert completed("show", "@", "g") == ["plain,g7"]
    assert completed("show", "@g") == ["plain,@g7"]


def test_commands_and_options_complete(known):
    assert "plain,config" in completed("co") + completed("")
    assert completed("config", "che") == ["plain,check"]
    assert "plain,--json" in completed("show", "--js")
    assert completed("completion", "z") == ["plain,zsh"]


def test_no_completion_speaks_to_the_broker_or_imports_its_client(known):
    program = (
        "import atexit, sys\n"
        "slow = {'redis', 'celery', 'kombu', 'yaml', 'rich', 'psutil'}\n"
        "atexit.register(lambda: print(sorted(slow & set(sys.modules))))\n"
        "from relayq.cli import main\n"
        "main()"
    )
    with counted() as (port, met):
        for words in ("", "show\n", "show\nn", "run\n--on\n", "logs\n", "cancel\n@", "config\n"):
            done = subprocess.run(
                [sys.executable, "-c", program],
                env=environ(
                    RELAYQ_BROKER__URL=f"redis://127.0.0.1:{port}",
                    _RELAYQ_COMPLETE="bash_complete",
                    COMP_WORDS=f"relayq\n{words}",
                    COMP_CWORD=str(words.count("\n") + 1),
                ),
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert (done.stdout.splitlines()[-1], done.stderr) == ("[]", "")
    assert met == []


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"jobs": 5, "hosts": {}}'])
def test_without_a_usable_memory_nothing_completes_and_nothing_is_said(home, content):
    if content is not None:
        (home / "cache").mkdir()
        (home / "cache" / "completion.json").write_text(content)

    assert completed("show", "") == []
    assert completed("run", "--on", "") == []


def test_a_broken_configuration_does_not_stop_completion(known):
    (known / "config.yml").write_text("{")

    assert completed("show", "3") == [f"plain,{ID}"]


def test_commands_remember_what_they_saw(shared_fleet):
    file = shared_fleet.home / "cache" / "completion.json"
    file.unlink(missing_ok=True)
    id = relayq("submit", "--name", "tidy-up", "echo 'a\x1b[2Jb'; true").stdout.strip()
    odd = relayq("submit", "--name", "two words $(x)", "true").stdout.strip()
    shared_fleet.job.fetch(odd).wait(20)
    file.unlink()

    assert relayq("ps").returncode == 0

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert completed("run", "--on", "") == ["plain,here"]
    assert {f"plain,{id}", f"plain,{odd}", "plain,tidy-up"} <= set(completed("show", ""))
    assert not [line for line in completed("show", "") if "two" in line or "$" in line]
    assert "\x1b" not in file.read_text()
    assert {*os.listdir(file.parent)} <= {"completion.json", "probes.json"}


def test_jobs_that_a_command_shows_or_queues_complete_at_once(shared_fleet):
    file = shared_fleet.home / "cache" / "completion.json"
    relayq("ps")
    elsewhere = shared_fleet.job.run("true", name="from-elsewhere").id
    here = relayq("submit", "--name", "from-here", "true").stdout.strip()
    known = set(completed("show", ""))
    assert {f"plain,{here}", "plain,from-here"} <= known
    assert f"plain,{elsewhere}" not in known

    relayq("ps")

    known = set(completed("show", ""))
    assert {f"plain,{here}", f"plain,{elsewhere}", "plain,from-elsewhere"} <= known
    jobs = json.loads(file.read_text())["jobs"]
    assert len({job["id"] for job in jobs}) == len(jobs) <= 25 * len(JobState)


def test_the_broker_is_asked_for_what_completes_once_a_minute(shared_fleet):
    file = shared_fleet.home / "cache" / "completion.json"
    file.unlink(missing_ok=True)
    relayq("status")
    first = json.loads(file.read_text())
    relayq("status")
    assert json.loads(file.read_text()) == first

    file.write_text(json.dumps(first | {"at": first["at"] - 60, "hosts": []}))
    relayq("status")

    assert json.loads(file.read_text())["hosts"] == first["hosts"] != []


@pytest.mark.parametrize("content", ["{", "[]", '{"at": 1e99}', '{"at": true, "jobs": 7}'])
def test_a_memory_that_cannot_be_used_is_replaced(shared_fleet, content):
    file = shared_fleet.home / "cache" / "completion.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)

    done = relayq("ps")

    assert (done.returncode, done.stderr) == (0, "")
    known = {"at", "hosts", "jobs", "agents", "schedules", "sessions"}
    assert json.loads(file.read_text()).keys() == known


def test_a_command_works_when_it_can_not_remember(shared_fleet):
    cache = shared_fleet.home / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.write_text("in the way")
    try:
        done = relayq("ps")
    finally:
        cache.unlink()

    assert (done.returncode, done.stderr) == (0, "")


# Real shells


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def typed(argv: list[str], lines: str, wanted: str, env: dict[str, str]) -> str:
    """Type into a shell on a terminal; returns the screen as soon as it has what is wanted."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], argv, env)
    seen = ""
    try:
        for part in lines.split("<wait>"):
            os.write(terminal, part.encode())
            deadline = monotonic() + 20
            mark = "ready>" if part.endswith("\n") else wanted
            while mark not in seen and monotonic() < deadline:
                if select.select([terminal], [], [], 0.1)[0]:
                    seen += os.read(terminal, 65_536).decode(errors="replace")
        return seen
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def interactive(home: Path, tmp_path: Path, path: str) -> dict[str, str]:
    return environ(PATH=path, HOME=str(tmp_path), ZDOTDIR=str(tmp_path), TERM="dumb", PS1="ready>")


def test_bash_completes(known, path, tmp_path):
    env = interactive(known, tmp_path, path)
    argv = [shell("bash"), "--norc", "--noprofile", "-i"]

    screen = typed(argv, 'eval "$(relayq completion bash)"\n<wait>relayq show 3f\t', ID, env)

    assert ID in screen


def test_zsh_completes(known, path, tmp_path):
    env = interactive(known, tmp_path, path)
    argv = [shell("zsh"), "-f", "-i"]
    load = 'PS1="ready"">"; autoload -Uz compinit; compinit -u; eval "$(relayq completion zsh)"\n'

    screen = typed(argv, f"{load}<wait>relayq show 3f\t", ID, env)

    assert ID in screen


def test_fish_completes_with_the_command_as_help(known, path, tmp_path):
    env = interactive(known, tmp_path, path)
    program = "relayq completion fish | source; complete -C 'relayq show '"

    done = subprocess.run(
        [shell("fish"), "--no-config", "-c", program],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
    )

    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [ID, "running  make nightly"] in lines
    assert ["@g7", "a group"] in lines


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_installed_completion_is_there_in_a_new_shell(known, path, tmp_path, name):
    env = interactive(known, tmp_path, path)
    program = shell(name)
    startup = tmp_path / f".{name}rc"
    startup.write_text("PS1='ready''>'")

    done = [relayq("completion", name, "--install", HOME=str(tmp_path), ZDOTDIR=str(tmp_path))]
    done.append(relayq("completion", name, "--install", HOME=str(tmp_path), ZDOTDIR=str(tmp_path)))

    assert [one.returncode for one in done] == [0, 0], done[0].stderr
    assert startup.read_text().count("relayq's completion") == 1
    argv = [program, "-i"] if name == "zsh" else [program, "--noprofile", "-i"]
    assert ID in typed(argv, "\n<wait>relayq show 3f\t", ID, env)


def test_installed_completion_is_there_in_a_new_fish(known, path, tmp_path):
    env = {**interactive(known, tmp_path, path), "XDG_CONFIG_HOME": str(tmp_path / ".config")}
    program = shell("fish")

    done = relayq("completion", "fish", "--install", XDG_CONFIG_HOME=env["XDG_CONFIG_HOME"])
    found = subprocess.run(
        [program, "-c", "complete -C 'relayq show 7'"],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == 0
    assert found.stdout.startswith(OTHER)
