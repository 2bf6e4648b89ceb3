"""Which of a job's processes may die, and what then becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from relayq.host import process
from relayq.host.process import (
    Shim,
    SpawnFailed,
)
from tests.system.shims.bench import ROOT, TREE, ended, marked, python
from tests.waiting import until

pytestmark = pytest.mark.system


def test_a_shim_outlives_the_fork_server_and_a_new_one_serves(bench):
    shim = bench.start_running("sh", "-c", "sleep 0.7; echo end; exit 9")
    first = bench.forks.pid

    os.kill(first, signal.SIGKILL)
    other, out, _ = bench.run("echo", "new")
    record, old_out, _ = ended(shim)

    assert (record.code, old_out) == (9, b"end\n")
    assert (other.code, out) == (0, b"new\n")
    assert bench.forks.pid != first


def test_a_job_outlives_its_worker_and_is_adopted(bench):
    directory = bench.prepare("sh", "-c", "sleep 0.7; echo end; exit 8")
    script = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path; from relayq.host.process import ForkServer\n"
        f"forks = ForkServer(); forks.start(); forks.spawn(Path({str(directory)!r}))\n"
        "print(forks.pid, flush=True); time.sleep(60)"
    )
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    forks = psutil.Process(int(worker.stdout.readline()))

    worker.kill()
    worker.wait()
    worker.stdout.close()
    until(lambda: not forks.is_running() or forks.status() == psutil.STATUS_ZOMBIE, what="its end")
    record, out, _ = ended(Shim(directory))

    assert (record.code, out) == (8, b"end\n")


def test_the_fork_server_ends_what_a_killed_shim_leaves(bench):
    mark = bench.mark()
    shim = bench.start_running(*python(TREE, mark))
    until(lambda: len(marked(mark)) == 5, what="the tree of five")
    other = bench.start_running("sh", "-c", "sleep 1; exit 2")

    os.kill(shim.run_facts().shim, signal.SIGKILL)

    assert shim.wait(5)
    until(lambda: not marked(mark), what="the end of the tree")
    assert shim.exit_record() is None
    assert ended(other)[0].code == 2


def test_a_sweep_ends_what_is_left_when_shim_and_fork_server_died(bench):
    mark = bench.mark()
    shim = bench.start_running(*python(TREE.replace("start(daemonise, {})", ""), mark))
    until(lambda: len(marked(mark)) == 4, what="the tree of four")

    os.kill(bench.forks.pid, signal.SIGKILL)
    os.kill(shim.run_facts().shim, signal.SIGKILL)
    assert shim.wait(5)
    process.sweep(shim.directory)

    assert marked(mark) == []
    assert shim.exit_record() is None


def test_a_program_in_a_terminal_dies_with_its_shim(bench):
    mark = bench.mark()
    directory = bench.prepare("sleep", mark, tty=True)
    (directory / "stdin").touch()
    bench.forks.spawn(directory)
    shim = Shim(directory)
    until(shim.run_facts, what="the leader to start")
    leader = shim.run_facts().leader

    os.kill(bench.forks.pid, signal.SIGKILL)
    os.kill(shim.run_facts().shim, signal.SIGKILL)

    until(lambda: leader not in marked(mark), what="the leader to die with its shim")


def test_a_sweep_leaves_a_living_shim_alone(bench):
    shim = bench.start_running("sh", "-c", "sleep 0.5; exit 3")

    process.sweep(shim.directory)

    assert ended(shim)[0].code == 3


def test_after_a_sweep_a_late_shim_starts_nothing(bench):
    directory = bench.prepare("true")

    process.sweep(directory)

    with pytest.raises(SpawnFailed):
        bench.forks.spawn(directory)
    assert not (directory / "run.json").exists()


def test_a_shim_lives_exactly_while_it_holds_its_lock(bench):
    shim = bench.start_running("sleep", "60")
    pid = shim.run_facts().shim
    assert shim.is_alive()
    assert not shim.wait(0.05)

    os.kill(bench.forks.pid, signal.SIGSTOP)  # so that nobody reaps
    try:
        os.kill(pid, signal.SIGKILL)
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, what="the zombie")

        assert shim.wait(1)
        assert not shim.is_alive()
        assert shim.ended.is_set()
    finally:
        os.kill(bench.forks.pid, signal.SIGCONT)


def test_looking_at_a_starting_shim_does_not_stop_it(bench):
    directories = [bench.prepare("true") for _ in range(30)]
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for directory in directories:
                Shim(directory).is_alive()

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for directory in directories:
            bench.forks.spawn(directory)
            assert ended(Shim(directory))[0].code == 0
    finally:
        done.set()
        watcher.join()
