"""What a host measures: recorded answers of systems that this machine isn't, and its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from relayq import clock
from relayq.host import sensors
from relayq.host.awake import Inhibitor, delaying_argv, holding_argv, send_magic
from relayq.host.sensors import GATE_EVERY, SLOW_EVERY, Gate, Sensors
from relayq.host.usage import OthersCpu, Times, growth, parse_stat, times
from relayq.hours import week_hours
from relayq.model.courtesy import Decision, Memory, Rules, decide
from tests.waiting import until

NOBODY = Rules(cpu=None)

PSI = """\
some avg10=12.35 avg60=3.60 avg300=0.94 total=3372970180
full avg10=1.00 avg60=0.00 avg300=0.00 total=0
"""
MEMORY_PRESSURE = """\
The system has 17179869184 (1048576 pages with a page size of 16384).
System-wide memory free percentage: 61%
"""
IOREG = """\
+-o Root  <class IORegistryEntry, id 0x100000100, retain 27>
  +-o IOHIDSystem  <class IOHIDSystem, id 0x1000003d4, registered, matched, active, busy 0>
      {
        "HIDIdleTime" = 83451009166
        "HIDParameters" = {"HIDIdleTime"=83459000000,"HIDClickTime"=500000000}
      }
"""
SEAT_IDLE = """\
Id=seat0
ActiveSession=2
CanGraphical=yes
IdleHint=yes
IdleSinceHint=1763725000000000
IdleSinceHintMonotonic=17655000000
"""


def test_linux_tells_how_long_something_waited_for_memory():
    assert sensors.parse_psi(PSI) == 12.35
    assert sensors.parse_psi("") is None


def test_macos_tells_how_much_memory_is_free():
    assert sensors.parse_free_memory(MEMORY_PRESSURE) == 39.0
    assert sensors.parse_free_memory("") is None


def test_macos_tells_when_its_keyboard_was_used():
    assert sensors.parse_hid_idle(IOREG) == pytest.approx(83.45, abs=0.01)
    assert sensors.parse_hid_idle("") is None


def test_x_tells_when_its_keyboard_was_used():
    assert sensors.parse_x_idle("8123\n") == 8.123
    assert sensors.parse_x_idle("couldn't open display") is None


def test_logind_tells_since_when_nobody_does_anything_at_its_seat():
    in_use = SEAT_IDLE.replace("IdleHint=yes", "IdleHint=no")
    empty = SEAT_IDLE.replace("ActiveSession=2", "ActiveSession=")

    assert sensors.parse_seat(SEAT_IDLE, 1763725060.0) == 60.0
    assert sensors.parse_seat(in_use, 1763725060.0) == 0.0
    assert sensors.parse_seat(empty, 1763725060.0) is None
    assert sensors.parse_seat("", 0.0) is None


def test_the_warmest_of_the_working_sensors_counts():
    assert sensors.warmest([41.5, 63.0, -273.2, 0.0, 65261.8]) == 63.0
    assert sensors.warmest([]) is None


def test_a_sensor_that_this_machine_lacks_is_no_error():
    charge, is_on_battery = sensors.battery()

    assert charge is None or 0 <= charge <= 100
    assert is_on_battery in (True, False)
    assert sensors.temperature() is None or sensors.temperature() > 0
    assert sensors.memory_pressure() is None or sensors.memory_pressure() >= 0
    assert sensors.idle() is None or sensors.idle() >= 0
    assert sensors.said_by("relayq-no-such-program") == ""


@pytest.mark.parametrize(
    ("command", "said"),
    [("true", ""), ("exit 3", "exit 3"), ("relayq-no-such-program", "exit 127")],
)
def test_a_gate_opens_with_exit_code_0_only(command, said):
    assert Gate(command).answer(60) == said


def test_a_gate_that_hangs_is_ended_and_stays_closed(tmp_path):
    pid = tmp_path / "pid"

    gate = Gate(f"sleep 60 & echo $! > {pid}; wait", patience=0.3)

    assert gate.answer(60) == "no answer in 0.3s"
    until(lambda: not is_running(int(pid.read_text())), what="what the gate had started to end")


def test_a_gate_that_thinks_keeps_nobody_waiting_but_at_first(tmp_path):
    asked, slow = tmp_path / "asked", tmp_path / "slow"
    gate = Gate(f"echo >> {asked}; if [ -e {slow} ]; then sleep 60; fi; exit 1", patience=1.0)
    assert gate.answer(0) == "exit 1"
    slow.touch()

    began = time.monotonic()
    assert gate.answer(0) == "exit 1"
    assert time.monotonic() - began < 0.9  # its patience
    until(lambda: gate.answer(0) == "no answer in 1s", what="its patience to end")
    slow.unlink()
    until(lambda: gate.answer(0) == "exit 1", what="its next answer")
    gate.close()


def test_a_gate_that_is_closed_leaves_nothing(tmp_path):
    pid, slow = tmp_path / "pid", tmp_path / "slow"
    gate = Gate(f"if [ -e {slow} ]; then sleep 60 & echo $! > {pid}; wait; fi")
    assert gate.answer(0) == ""
    slow.touch()
    assert gate.answer(0) == ""
    until(lambda: pid.exists() and pid.read_text(), what="the gate to think")

    gate.close()

    until(lambda: not is_running(int(pid.read_text())), what="what the gate had started to end")


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_only_what_a_rule_is_for_is_measured():
    reading = Sensors(NOBODY, lambda: [], 0.5).read()

    assert (reading.others, reading.load, reading.memory, reading.idle) == (None,) * 4
    assert 0 <= reading.weekday <= 6
    assert 0 <= reading.minute < 24 * 60


class Clock:
    """The boot clock of a sensor, turned by hand."""

    def __init__(self, patch) -> None:
        self.at = 1000.0
        patch.setattr("relayq.host.sensors.clock.boottime", lambda: self.at)


def test_what_takes_long_is_measured_and_asked_now_and_then(monkeypatch, tmp_path):
    clock, measured = Clock(monkeypatch), []
    monkeypatch.setattr(sensors, "idle", lambda: measured.append(clock.at) or 7.0)
    asked = tmp_path / "asked"
    rules = Rules(cpu=None, when_active=60, gate=f"echo >> {asked}; exit 1")
    here = Sensors(rules, lambda: [], 0.5)

    def look() -> None:
        reading = here.read()
        assert (reading.idle, reading.gate) == (7.0, "exit 1")
        clock.at += 0.5

    for _ in range(GATE_EVERY + 1):
        look()

    assert len(measured) == GATE_EVERY // SLOW_EVERY + 1
    until(lambda: asked.stat().st_size == 2, what="the gate to be asked again")
    here.close()


def test_a_patient_look_measures_less_often(monkeypatch):
    clock, measured = Clock(monkeypatch), []
    monkeypatch.setattr(sensors, "idle", lambda: measured.append(clock.at) or 7.0)
    here = Sensors(Rules(cpu=None, when_active=60), lambda: [], 0.5)

    for _ in range(9):
        here.read(patience=4)
        clock.at += 2.0
    here.read(patience=1)

    assert measured == [1000.0, 1008.0, 1016.0, 1018.0]


# From what a machine says to what its worker does


def battery_says(patch, percent: float, *, is_plugged: bool) -> None:
    said = SimpleNamespace(percent=percent, power_plugged=is_plugged)
    patch.setattr("psutil.sensors_battery", lambda: said, raising=False)


def chip_says(patch, degrees: float) -> None:
    said = {"coretemp": [SimpleNamespace(current=one) for one in (degrees - 20, degrees, -273.2)]}
    patch.setattr("psutil.sensors_temperatures", lambda: said, raising=False)


def logind_says(patch, seat: str) -> None:
    patch.delenv("DISPLAY", raising=False)
    patch.setattr("psutil.users", list)
    patch.setattr(sensors, "said_by", lambda program, *_: seat if program == "loginctl" else "")
    patch.setattr("relayq.host.sensors.clock.now", lambda: 1763725400.0)


def kernel_says(patch, load: float) -> None:
    patch.setattr(os, "getloadavg", lambda: (load * (os.cpu_count() or 1), 0.0, 0.0))


def clock_says(patch, weekday: int, hour: int) -> None:
    here = time.struct_time((2026, 11, 16 + weekday, hour, 30, 0, weekday, 320, 0))
    patch.setattr(sensors.time, "localtime", lambda _: here)


IN_USE = SEAT_IDLE.replace("IdleHint=yes", "IdleHint=no")
OFFICE = Rules(cpu=None, hours=week_hours("mon-fri 9-18"), hours_text="mon-fri 9-18")


@pytest.mark.parametrize(
    ("rules", "say", "reason", "freezes"),
    [
        pytest.param(rules, say, reason, freezes, id=reason or f"nothing: {name}")
        for name, rules, say, reason, freezes in [
            (
                "battery",
                Rules(cpu=None, on_battery=True),
                lambda patch: battery_says(patch, 38.4, is_plugged=False),
                "on battery 38%",
                True,
            ),
            (
                "plugged",
                Rules(cpu=None, on_battery=True),
                lambda patch: battery_says(patch, 38.4, is_plugged=True),
                "",
                False,
            ),
            (
                "heat",
                Rules(cpu=None, temperature=85.0),
                lambda patch: chip_says(patch, 91.0),
                "91 degrees warm",
                True,
            ),
            (
                "warmth",
                Rules(cpu=None, temperature=85.0),
                lambda patch: chip_says(patch, 84.0),
                "",
                False,
            ),
            (
                "keyboard",
                Rules(cpu=None, when_active=180),
                lambda patch: logind_says(patch, IN_USE),
                "owner active (keyboard 0s ago)",
                True,
            ),
            (
                "left",
                Rules(cpu=None, when_active=180),
                lambda patch: logind_says(patch, SEAT_IDLE),
                "",
                False,
            ),
            (
                "hours",
                OFFICE,
                lambda patch: clock_says(patch, 0, 9),
                "its owner's hours: mon-fri 9-18",
                True,
            ),
            ("evening", OFFICE, lambda patch: clock_says(patch, 0, 19), "", False),
            (
                "gate",
                Rules(cpu=None, gate="exit 2"),
                lambda _: None,
                "its gate says no (exit 2)",
                True,
            ),
            ("open", Rules(cpu=None, gate="true"), lambda _: None, "", False),
            (
                "load",
                Rules(cpu=None, load=1.5),
                lambda patch: kernel_says(patch, 2.0),
                "load 2.0 for each CPU",
                False,
            ),
            (
                "memory",
                Rules(cpu=None, memory=10.0),
                lambda patch: patch.setattr(
                    sensors, "memory_pressure", lambda: sensors.parse_psi(PSI)
                ),
                "short of memory",
                False,
            ),
        ]
    ],
)
def test_what_the_machine_says_decides(monkeypatch, rules, say, reason, freezes):
    clock = Clock(monkeypatch)
    say(monkeypatch)
    here, memory = Sensors(rules, lambda: [], 0.5), Memory()

    for _ in range(20):
        memory = decide(memory, here.read(), rules, clock.at)
        clock.at += 0.5
    here.close()

    assert memory.decision == Decision(takes_work=not reason, freezes=freezes, reason=reason)


# The CPU of others


def share_of(*, own: bool) -> float:
    """Return the others' share while a process beside us does nothing but count."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        others = OthersCpu(lambda: [os.getpid()] if own else [])
        clock.sleep(1.0)
        return others.read() or 0.0
    finally:
        busy.kill()
        busy.wait()


def test_the_cpu_of_own_trees_isnt_the_cpu_of_others():
    before = os.times()
    at = time.monotonic()
    counted = share_of(own=True)
    after = os.times()
    room = (time.monotonic() - at) * (os.cpu_count() or 1)
    ours = (after.children_user - before.children_user) / room * 100

    # Whatever else runs here: own work and that of others never exceed all there is.
    assert counted <= 100 - ours + 15


def test_a_tree_that_came_since_the_last_look_is_ours_as_well():
    others = OthersCpu(lambda: [os.getpid()])
    before, at = os.times(), time.monotonic()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        clock.sleep(1.0)
        counted = others.read() or 0.0
    finally:
        busy.kill()
        busy.wait()
    after = os.times()
    room = (time.monotonic() - at) * (os.cpu_count() or 1)
    ours = (after.children_user - before.children_user) / room * 100

    assert counted <= 100 - ours + 15


def test_no_process_is_looked_for_while_there_is_room(monkeypatch):
    def search() -> dict:
        raise AssertionError("searched the table")

    others = OthersCpu(lambda: [os.getpid()], bar=1000.0)
    monkeypatch.setattr("relayq.host.usage.tree.processes", search)

    clock.sleep(0.05)
    assert 0 <= others.read() <= 100


def took(own: float, awaited: float = 0.0) -> Times:
    return Times("started", 10.0, own, awaited)


@pytest.mark.parametrize(
    ("before", "now", "used"),
    [
        ({1: took(5)}, {1: took(6)}, 1.0),
        # Its parent has it now, all of it.
        ({1: took(5), 2: took(9)}, {1: took(5, 9.5)}, 0.5),
        # Nobody waited for it, or who did is gone as well.
        ({1: took(5), 2: took(9)}, {1: took(5.5)}, 0.5),
        ({1: took(5), 2: took(9)}, {}, 0.0),
        ({}, {}, 0.0),
    ],
)
def test_a_process_that_ended_is_counted_once(before, now, used):
    assert growth(before, now) == used


def test_linux_tells_what_a_process_and_its_children_used():
    ticks = os.sysconf("SC_CLK_TCK")
    raw = (
        b"14077 (tmux: ) (x) S 1 14077 14077 0 -1 4194304 1104 2061 0 1 "
        b"%d %d %d %d 20 0 1 0 %d 8536064 962 18446744073709551615\n"
    ) % (3 * ticks, 2 * ticks, 7 * ticks, 1 * ticks, 40 * ticks)

    assert parse_stat(raw, at=100.0) == Times(str(40 * ticks), 60.0, 5.0, 8.0)
    assert parse_stat(b"", at=100.0) is None
    assert times(os.getpid()).own > 0
    assert times(2**22 + 1) is None


def test_the_cpu_of_another_tree_is():
    assert share_of(own=False) >= 100 / (os.cpu_count() or 1) * 0.3


# Awake, and awaking


def found(name: str) -> str:
    return f"/usr/bin/{name}"


def test_each_system_is_kept_awake_by_a_tool_of_its_own():
    assert holding_argv("darwin", found) == ["/usr/bin/caffeinate", "-i", "-m", "-s", "cat"]
    assert holding_argv("linux", found) == [
        "/usr/bin/systemd-inhibit",
        "--what=idle:sleep",
        "--who=relayq",
        "--why=a job runs",
        "--mode=block",
        "cat",
    ]
    assert holding_argv("freebsd", found) is None
    assert holding_argv("linux", lambda name: None) is None


def test_sleep_is_delayed_where_logind_takes_it():
    assert delaying_argv("linux", found) == [
        "/usr/bin/systemd-inhibit",
        "--what=sleep:shutdown",
        "--who=relayq",
        "--why=tells its fleet",
        "--mode=delay",
        "cat",
    ]
    assert delaying_argv("darwin", found) is None
    assert delaying_argv("linux", lambda name: None) is None


def test_a_machine_is_held_awake_until_it_is_let_go(tmp_path):
    held = tmp_path / "held"
    awake = Inhibitor(["sh", "-c", f"echo >> {held}; cat; rm {held}"])

    awake.hold()
    until(held.exists, what="it to be held")
    awake.hold()
    assert held.stat().st_size == 1
    awake.release()

    assert not held.exists()
    awake.release()


@pytest.mark.parametrize("argv", [None, ["false"], ["/no/such/tool"]])
def test_a_machine_that_cant_be_held_says_so_once(argv, caplog):
    caplog.set_level("INFO")
    awake = Inhibitor(argv)

    def said() -> int:
        awake.hold()
        return len(caplog.records)

    until(said, what="a remark")
    for _ in range(3):
        awake.hold()

    assert len(caplog.records) == 1


def test_the_magic_packet_is_sent_as_it_is():
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        send_magic("a8:20:66:1b:0c:4d", address="127.0.0.1", port=ear.getsockname()[1])
        packet = ear.recv(200)

    assert packet == bytes.fromhex("ffffffffffff" + "a820661b0c4d" * 16)
