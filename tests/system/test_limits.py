"""Limits of a job: what it may write, its memory, its processes; held by shim and kernel."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from relayq import JobFailed, RelayqError
from relayq.host.cgroups import CONTROLLERS, find_place
from relayq.host.process import Shim, attempts
from tests.conftest import missing
from tests.system.commands import relayq, shown, submit
from tests.waiting import until

pytestmark = pytest.mark.system

HUNGRY = "x = [bytearray(1 << 20) for _ in range(600)]; print(len(x))"


def no_groups() -> str:
    """Return why this machine can't limit a job, empty when it can."""
    try:
        for controller in CONTROLLERS.values():
            place = find_place(controller)
            trial = Path(place.parent) / f"relayq-{os.getpid()}-trial"
            trial.mkdir()
            trial.rmdir()
    except OSError as error:
        return str(error)
    return ""


def groups() -> list[Path]:
    """Return the control groups of jobs that exist now."""
    parents = {find_place(controller).parent for controller in CONTROLLERS.values()}
    return [group for parent in parents for group in Path(parent).glob("relayq-*")]


def groups_of(id: str) -> list[Path]:
    return [group for group in groups() if id in group.name]


@pytest.fixture
def kernel_limits():
    """Skip where the kernel limits nothing, which CI excuses."""
    if why := no_groups():
        missing(f"no control groups to be had: {why}", excused=True)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


# Output


def test_an_output_beyond_its_limit_ends_the_job_and_is_kept_up_to_it(shared_fleet):
    result = shared_fleet.job.run(["yes", "0123456"], max_output="1MB")

    record = result.wait(20)

    assert (record.state, record.reason) == ("failed", "output")
    assert b"".join(frame.data for frame in result.logs()) == b"0123456\n" * 125_000
    with pytest.raises(JobFailed, match="more than 1 MB of output") as caught:
        result.get()
    assert caught.value.exit_code == 153


def test_a_job_that_ends_with_too_much_output_failed_as_well(shared_fleet):
    result = shared_fleet.job.run("head -c 1001 /dev/zero", max_output=1000)

    record = result.wait(20)

    assert (record.state, record.reason) == ("failed", "output")
    assert result.text == "\0" * 1000


def test_an_output_as_large_as_its_limit_is_none_too_large(shared_fleet):
    assert shared_fleet.job.run("printf 12345", max_output=5).get(20) == "12345"


def test_too_much_output_is_tried_again_only_after_all_ends(shared_fleet):
    run = shared_fleet.job.run
    options = {"max_output": 10, "retries": 1, "backoff": "0s..0s"}

    by_default = run("seq 100", **options)
    after_all = run("seq 100", retry_on="all", **options)

    assert by_default.wait(20).attempt == 1
    assert after_all.wait(20).attempt == 2


# Memory


def test_a_job_beyond_its_memory_limit_is_out_of_memory_and_nothing_else_is_hurt(
    shared_fleet, kernel_limits
):
    before = shared_fleet.pid_online()
    bystander = shared_fleet.job.run("sleep 1; echo unharmed")

    result = shared_fleet.job.run(python(HUNGRY), memory="200MB")
    record = result.wait(30)

    assert (record.state, record.reason, record.signal) == ("failed", "oom", signal.SIGKILL)
    with pytest.raises(JobFailed, match=r"out of memory \(limit 200 MB\)") as caught:
        result.get()
    assert caught.value.exit_code == 137
    assert bystander.get(20) == "unharmed"
    assert shared_fleet.pid_online() == before
    assert groups_of(result.id) == []


def test_a_shell_whose_program_was_out_of_memory_gives_its_own_exit_code(
    shared_fleet, kernel_limits
):
    result = shared_fleet.job.run(f"{sys.executable} -c '{HUNGRY}' || exit 7", memory=200_000_000)

    record = result.wait(30)

    assert (record.reason, record.exit_code) == ("oom", 7)


def test_a_job_that_gets_over_want_of_memory_succeeds_with_a_remark(shared_fleet, kernel_limits):
    line = f"{sys.executable} -c '{HUNGRY}' || echo smaller"

    done = relayq("run", "--memory", "200MB", line)

    assert (done.returncode, done.stdout) == (0, "smaller\n")
    assert "one of its processes was ended: it hit its memory limit" in done.stderr


def test_a_job_within_its_limits_ends_as_any_other(shared_fleet, kernel_limits):
    result = shared_fleet.job.run(
        "echo all well; exit 3", memory="1GB", processes=50, max_output="1MB"
    )

    record = result.wait(20)

    assert (record.reason, record.exit_code) == ("exit", 3)
    assert result.remarks == ()
    assert groups_of(result.id) == []


def test_a_command_that_cannot_be_found_is_told_under_a_limit_too(shared_fleet, kernel_limits):
    done = relayq("run", "--memory", "100MB", "--", "no-such-program")

    assert done.returncode == 127
    assert "command not found" in done.stderr


# Processes


def test_processes_beyond_the_limit_are_refused_and_others_start_theirs(
    shared_fleet, kernel_limits
):
    forks = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    for _ in range(100):\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(60)\n"
        "        made += 1\n"
        "except BlockingIOError:\n"
        "    print(made)\n"
    )
    result = shared_fleet.job.run(python(forks), processes=10)
    other = shared_fleet.job.run("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.2 & done; wait")

    assert result.get(30) == "9"
    assert result.remarks == ("it hit its limit of 10 processes",)
    assert other.wait(20).state == "succeeded"
    assert shown(result.id)["remarks"] == ["it hit its limit of 10 processes"]


def test_a_fork_bomb_is_held_until_it_is_cancelled(shared_fleet, kernel_limits):
    bomb = (
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    )
    result = shared_fleet.job.run(python(bomb), processes=20)
    until(lambda: any(_count(one) == 20 for one in groups_of(result.id)), what="20 processes")

    assert shared_fleet.job.run("echo others go on").get(20) == "others go on"
    result.cancel()

    assert result.wait(30).state == "cancelled"
    assert groups_of(result.id) == []


def _count(group: Path) -> int:
    with suppress(FileNotFoundError):
        return int((group / "pids.current").read_text())
    return 0


def test_one_process_is_enough_for_one(shared_fleet, kernel_limits):
    assert shared_fleet.job.run(["echo", "alone"], processes=1).get(20) == "alone"


# Where they are held


def test_a_shim_takes_the_next_job_outside_of_the_last_ones_group(shared_fleet, kernel_limits):
    look = "cat /proc/self/cgroup; echo $PPID"

    def placed(**limits: int) -> tuple[str, str]:
        *lines, parent = shared_fleet.job.run(look, **limits).get(20).splitlines()
        return "\n".join(lines), parent

    before, _ = placed()
    limited, _ = placed(memory=100_000_000, processes=50)
    after, _ = placed()

    assert "relayq-" in limited
    assert before == after == Path("/proc/self/cgroup").read_text().rstrip()


def test_a_job_in_a_terminal_has_its_limits(shared_fleet, kernel_limits):
    result = shared_fleet.job.run(python(HUNGRY), tty=True, memory="200MB")

    assert result.wait(30).reason == "oom"


def test_the_group_of_a_killed_shim_is_removed_by_the_next_worker(fleet, kernel_limits):
    result = fleet.job.run("sleep 600", memory="100MB", processes=10, on_lost="fail")
    until(lambda: groups_of(result.id), what="its groups")
    [directory] = attempts(fleet.config.spool)
    shim = until(Shim(directory).run_facts, what="the leader").shim
    os.kill(int(_parent(shim)), signal.SIGSTOP)  # the fork server, which would end what is left
    fork_server = int(_parent(shim))
    fleet.end_worker(signal.SIGKILL)
    os.kill(shim, signal.SIGKILL)
    os.kill(fork_server, signal.SIGKILL)

    fleet.start_worker()

    assert result.wait(40).reason == "lost"
    until(lambda: not groups_of(result.id), within=10, what="the groups to be gone")


def _parent(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]


@pytest.mark.root
def test_a_limit_that_cannot_be_held_is_told_and_the_job_runs(fleet):
    fleet.end_worker()
    # A mount namespace of its own, in which there are no control groups.
    hide = 'umount -a -t cgroup,cgroup2; exec "$0" -m relayq.worker'
    argv = ["unshare", "-m", "sh", "-c", hide, sys.executable]
    fleet.start_worker("-c", f"import os; os.execvp('unshare', {argv!r})")

    done = relayq("run", "--memory", "100MB", "--processes", "5", "echo it runs")

    assert (done.returncode, done.stdout) == (0, "it runs\n")
    assert "its memory limit was not held on here: no memory control groups here" in done.stderr
    assert "its process limit was not held on here: no pids control groups here" in done.stderr


# Asking


def test_limits_are_checked_before_anything_is_queued(shared_fleet):
    run = shared_fleet.job.run

    for options, said in (
        ({"memory": "1MB"}, "memory: expected a size of 4MiB or more"),
        ({"memory": "much"}, "memory: expected a size"),
        ({"processes": 0}, "processes: expected a whole number from 1 on"),
        ({"max_output": 0}, "max_output: expected a size of 1B or more"),
    ):
        with pytest.raises(RelayqError, match=said):
            run("true", **options)


def test_limits_are_shown_before_and_after(shared_fleet):
    limits = ["--memory", "2GB", "--processes", "200", "--max-output", "1GB"]

    plan = relayq("run", "--dry-run", *limits, "true")
    id = submit(*limits, "true")

    assert "memory 2 GB, processes 200, output 1 GB" in plan.stdout
    assert "memory 2 GB, processes 200, output 1 GB" in relayq("show", id).stdout
    spec = shown(id)["spec"]
    assert [spec[name] for name in ("memory", "processes", "max_output")] == [
        2_000_000_000,
        200,
        1_000_000_000,
    ]


def test_configured_limits_are_those_of_a_job_that_asks_for_none(shared_fleet, monkeypatch):
    monkeypatch.setenv("RELAYQ_DEFAULTS__MAX_OUTPUT", "10B")

    by_default = relayq("run", "seq 100")
    asked = relayq("run", "--max-output", "1kB", "seq 100")

    assert (by_default.returncode, by_default.stdout) == (153, "1\n2\n3\n4\n5\n")
    assert asked.returncode == 0


def test_what_was_limited_is_explained(shared_fleet):
    id = submit("--max-output", "10B", "seq 100")
    relayq("wait", id)

    why = relayq("why", id).stdout

    assert "its output passed its limit of 10 B (--max-output)" in why
