"""Rows 7, 8, 11, 13, 15, 22 and 30: worker, fork server, shim, job or client dies or is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from relayq.model.jobs import ON_LOST
from tests.system.faults.blows import asleep, until_state
from tests.system.faults.journal import check_invariants, processes
from tests.system.faults.scene import Host
from tests.waiting import until

pytestmark = pytest.mark.system

#: Ends its shim, the fork server and the worker above it, as a job may that takes all memory.
POISON = """
import os, signal, sys
def above(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
shim = os.getppid()
forks = above(shim)
open(sys.argv[1], "a").write("start\\n")
for pid in {"shim": [shim], "all": [above(forks), forks, shim]}[sys.argv[2]]:
    os.kill(pid, signal.SIGKILL)
signal.pause()
"""
#: Besides the leader: a child, a child in a session of its own, a daemon; none minds SIGTERM.
TREE = "trap '' TERM; sleep 301 & setsid sleep 302 & (setsid sleep 303 &); echo > {}; wait"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_workers_jobs_go_on_and_are_adopted(scene, journal, one, number):
    results = [journal.submit(scene.job, 2, lines=500, on_lost=word) for word in ON_LOST]
    for result in results:
        journal.started(result)

    one.end(number)
    one.start()

    records = check_invariants(journal, scene.job, ["one"], starts=1)
    assert {(r.state, r.attempt, r.losses) for r in records.values()} == {("succeeded", 1, 0)}


def test_a_dead_fork_server_costs_no_running_job_and_no_coming_one(scene, journal, one):
    running = journal.submit(scene.job, 1, lines=50)
    journal.started(running)

    os.kill(fork_server(one), signal.SIGKILL)
    for _ in range(4):
        journal.submit(scene.job)

    check_invariants(journal, scene.job, ["one"], starts=1)


def test_what_loses_shim_and_worker_goes_by_its_policy_and_leaves_no_orphan(
    scene, journal, one, tmp_path
):
    command = "[ $RELAYQ_ATTEMPT = 1 ] || exit 0; " + TREE
    results = {
        word: scene.job.run(command.format(tmp_path / word), on_lost=word) for word in ON_LOST
    }
    for word, result in results.items():
        journal.promise(result.id, word)
        until((tmp_path / word).exists, within=15, what=f"the {word} job to start")
    shims = [facts(one, result)["shim"] for result in results.values()]

    with asleep(one.pid, fork_server(one)):
        for pid in [fork_server(one), *shims, one.pid]:
            os.kill(pid, signal.SIGKILL)
    one.end()
    assert len(processes(journal.promises)) >= 9
    one.start()

    # Its host itself says that nothing is left: no wait, and no doubt about a retry.
    until_state(results["ask"], "needs_human", within=10)
    until_state(results["fail"], "failed", within=10)
    until_state(results["retry"], "succeeded", within=10)
    until(lambda: not processes(journal.promises), within=10, what="the orphans' end")
    assert results["retry"].record.attempt == 2
    results["ask"].retry()
    until_state(results["ask"], "succeeded", within=10)


@pytest.mark.parametrize(
    ("command", "reason", "exit_code", "number"),
    [
        ("kill -9 $$", "signal", None, 9),
        ("kill -SEGV $$", "signal", None, 11),
        ("exit 137", "exit", 137, None),
    ],
)
def test_a_job_that_dies_has_failed_and_isnt_lost(scene, command, reason, exit_code, number):
    record = scene.job.run(command).wait(20)

    assert (record.state, record.reason, record.losses) == ("failed", reason, 0)
    assert (record.exit_code, record.signal, record.attempt) == (exit_code, number, 1)


@pytest.mark.parametrize("who", ["leader", "shim"])
def test_the_time_limit_ends_also_what_somebody_stopped(scene, journal, one, who):
    result = journal.submit(scene.job, gate=journal.gate, timeout=1.5)
    journal.started(result)

    os.kill(facts(one, result)[who], signal.SIGSTOP)

    until_state(result, "failed", within=15)
    assert result.reason == "timeout"
    check_invariants(journal, scene.job, ["one"])


def test_a_cancel_reaches_a_shim_that_somebody_stopped(scene, journal, one):
    result = journal.submit(scene.job, gate=journal.gate)
    journal.started(result)
    os.kill(facts(one, result)["shim"], signal.SIGSTOP)

    assert journal.cancel(result) == "asked"

    until_state(result, "cancelled", within=10)
    check_invariants(journal, scene.job, ["one"])


def test_a_stopped_shim_doesnt_let_its_job_run_on_without_a_permit(scene, journal, one):
    result = journal.submit(scene.job, gate=journal.gate)
    journal.started(result)

    os.kill(facts(one, result)["shim"], signal.SIGSTOP)
    until(lambda: state_of(facts(one, result)["shim"]) != "stopped", within=10, what="its waking")
    journal.gate.touch()

    check_invariants(journal, scene.job, ["one"], starts=1)


def test_an_interrupted_client_leaves_its_job_alone(scene, journal, one):
    code = (
        "import sys; from relayq import Relay; relay = Relay(say=lambda _: None)\n"
        "try: relay.job.fetch(sys.argv[1]).get()\n"
        "except KeyboardInterrupt: sys.exit(7)"
    )
    result = journal.submit(scene.job, gate=journal.gate)
    journal.started(result)
    client = subprocess.Popen(
        [sys.executable, "-c", code, result.id], env=scene.environ(scene.home, scene.link)
    )
    until(lambda: waits_for(scene, result), within=15, what="the client to wait")

    client.send_signal(signal.SIGINT)

    assert client.wait(10) == 7
    journal.gate.touch()
    records = check_invariants(journal, scene.job, ["one"], starts=1)
    assert records[result.id].state == "succeeded"


@pytest.mark.parametrize("state", ["running", "frozen"])
def test_a_job_whose_directory_is_deleted_is_ended_and_run_again(scene, journal, one, state):
    results = {word: journal.submit(scene.job, gate=journal.gate, on_lost=word) for word in ON_LOST}
    for result in results.values():
        journal.started(result)
    if state == "frozen":
        one.end(signal.SIGKILL)
        leader = facts(one, results["ask"])["leader"]
        until(lambda: state_of(leader) == "stopped", within=10, what="the freeze")
        shutil.rmtree(one.config.spool)
    else:
        for result in results.values():
            shutil.rmtree(one.attempts(result.id)[0])

    until(lambda: not processes_of_attempt(journal, 1), within=15, what="the end of the trees")
    journal.gate.touch()
    if state == "frozen":
        one.start()

    until_state(results["ask"], "needs_human")
    records = check_invariants(journal, scene.job, ["one"], starts=2)
    assert records[results["retry"].id].state == "succeeded"
    assert records[results["fail"].id].reason == "lost"


@pytest.mark.parametrize("victims", ["shim", "all"])
def test_a_job_that_kills_who_runs_it_is_a_dead_letter_and_others_go_on(
    scene, journal, one, tmp_path, victims
):
    poison = scene.job.run([sys.executable, "-c", POISON, str(tmp_path / "starts"), victims])
    with supervised(one):
        others = [journal.submit(scene.job, 0.2, lines=20) for _ in range(12)]
        until_state(poison, "failed", within=40)
        for result in others:
            until_state(result, "succeeded")

    record = poison.record
    assert (record.reason, record.losses) == ("lost", 3)
    assert (tmp_path / "starts").read_text() == "start\n" * 3
    one.repair()
    check_invariants(journal, scene.job, ["one"], starts=1)


@pytest.mark.root
def test_a_full_spool_costs_output_at_most(own_scene, journal):
    one = own_scene.add("one", start=False)
    one.config.spool.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(one.config.spool)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a tmpfs")
    try:
        one.start()
        ballast = one.config.spool / "ballast"
        ballast.write_bytes(bytes(65536))
        quiet = journal.submit(own_scene.job, gate=journal.gate)
        journal.started(quiet)
        loud = own_scene.job.run(
            f"head -c 3000000 /dev/zero; touch {journal.directory}/loud; exit 3"
        )
        until((journal.directory / "loud").exists, within=20, what="the loud job")
        until_state(loud, "failed")
        assert loud.exit_code == 3
        with suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

        next_one = own_scene.job.run("echo room")
        until(lambda: next_one.state in ("failed", "scheduled"), within=15, what="its refusal")
        journal.gate.touch()
        until_state(quiet, "succeeded")
        ballast.unlink()

        assert one.is_alive
        check_invariants(journal, own_scene.job, ["one"], starts=1)
        if next_one.state == "failed":
            next_one.retry()
        assert next_one.get(timeout=60) == "room"
    finally:
        one.close()
        subprocess.run(["umount", "-l", str(one.config.spool)], check=True)


# What is looked at


def facts(host: Host, result) -> dict:
    """Return the processes of a running job."""
    [directory] = host.attempts(result.id)
    return until(lambda: _read(directory / "run.json"), within=5, what="run.json")


def _read(path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def fork_server(host: Host) -> int:
    [server] = [child.pid for child in psutil.Process(host.pid).children() if is_server(child)]
    return server


def is_server(child: psutil.Process) -> bool:
    try:
        return "relayq-shims" in child.name() or "forkserver" in " ".join(child.cmdline())
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return False


def state_of(pid: int) -> str:
    try:
        return psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return "gone"


def processes_of_attempt(journal, attempt: int) -> list[int]:
    """Return the processes of all promised jobs that belong to this attempt."""
    found = []
    for pid in processes(journal.promises):
        with suppress(psutil.Error):
            if psutil.Process(pid).environ().get("RELAYQ_ATTEMPT") == str(attempt):
                found.append(pid)
    return found


def waits_for(scene, result) -> bool:
    """Tell whether somebody blocks on the end of this job."""
    clients = scene.broker.connection.client_list()
    return any(client["cmd"] == "xread" and "b" in client["flags"] for client in clients)


@contextmanager
def supervised(host: Host) -> Iterator[None]:
    """Start the worker again whenever it has died, as a service manager does."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            if not host.is_alive:
                host.start(wait=False)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
