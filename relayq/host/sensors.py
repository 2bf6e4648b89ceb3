"""What a host measures to know when to stand back: CPU of others, keyboard, battery, and so on.

Each sensor is a function that gives None where this machine has nothing to measure with. Only
those are asked that a rule is for: an idle worker must cost next to nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf

from relayq import clock
from relayq.host.usage import OthersCpu
from relayq.model.courtesy import Reading, Rules

#: How long a program that a sensor asks, and the owner's gate, may take.
_PATIENCE = 1.0
GATE_PATIENCE = 5.0
#: What takes a program or many files is measured every so many looks only; the gate is asked still
#: less often.
SLOW_EVERY = 4
GATE_EVERY = 40


class Sensors:
    """This machine's, as far as `rules` asks; `roots` gives the pids above relayq's own work.

    `look` is how often they are read, in seconds, while that is pressing.
    """

    def __init__(self, rules: Rules, roots: Callable[[], Sequence[int]], look: float) -> None:
        self._rules = rules
        self._look = look
        has_rule = rules.cpu is not None
        self._cpu = OthersCpu(roots, bar=rules.resume_below) if has_rule else None
        self._gate = Gate(rules.gate) if rules.gate is not None else None
        self._slow = Reading()
        self._slow_at = -inf

    def read(self, *, patience: float = 1.0) -> Reading:
        """Return what is measured now, the slow sensors' part up to `patience` times as old."""
        at, here = clock.boottime(), time.localtime(clock.now())
        # A look may come a little early.
        if at - self._slow_at >= (SLOW_EVERY - 0.5) * self._look * patience:
            self._slow, self._slow_at = self._measured(), at
        gate_age = (GATE_EVERY - 0.5) * self._look
        return replace(
            self._slow,
            others=self._cpu.read() if self._cpu is not None else None,
            weekday=here.tm_wday,
            minute=here.tm_hour * 60 + here.tm_min,
            gate=self._gate.answer(gate_age) if self._gate is not None else None,
        )

    def close(self) -> None:
        """End what was asked and hasn't answered."""
        if self._gate is not None:
            self._gate.close()

    def _measured(self) -> Reading:
        rules = self._rules
        charge, is_on_battery = battery() if rules.on_battery else (None, False)
        return Reading(
            load=os.getloadavg()[0] / (os.cpu_count() or 1) if rules.load is not None else None,
            memory=memory_pressure() if rules.memory is not None else None,
            battery=charge,
            is_on_battery=is_on_battery,
            idle=idle() if rules.when_active is not None else None,
            temperature=temperature() if rules.temperature is not None else None,
        )


class Gate:
    """The owner's command, which says now and then whether jobs may run.

    Only its first answer is waited for: while it thinks, the other sensors must be read.
    """

    def __init__(self, command: str, patience: float = GATE_PATIENCE) -> None:
        self._command = command
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._asked_at = -inf
        self._said: str | None = None

    def answer(self, max_age: float) -> str:
        """Return what it has against running jobs, empty for nothing; asked again when too old."""
        at = clock.boottime()
        if self._process is None and at - self._asked_at >= max_age:
            self._process, self._asked_at = self._asked(), at
        if self._process is not None:
            self._hear(self._process, at - self._asked_at)
        return self._said or ""

    def _asked(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/sh", "-c", self._command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def _hear(self, process: subprocess.Popen[bytes], waited: float) -> None:
        left = self._patience - waited
        try:
            code = process.wait(0 if self._said is not None else max(0.0, left))
        except subprocess.TimeoutExpired:
            if self._said is None or left <= 0:
                self.close()
                self._said = f"no answer in {self._patience:g}s"
            return
        self._process = None
        self._said = f"exit {code}" if code else ""

    def close(self) -> None:
        """End the command if it still runs, with all that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def memory_pressure() -> float | None:
    """Return the percent of time that something waited for memory, lately."""
    try:
        with open("/proc/pressure/memory", encoding="ascii") as file:
            return parse_psi(file.read())
    except OSError:
        return parse_free_memory(said_by("memory_pressure", "-Q")) if _IS_MAC else None


def parse_psi(text: str) -> float | None:
    """Read Linux's /proc/pressure/memory."""
    found = re.search(r"^some avg10=([\d.]+)", text, re.MULTILINE)
    return float(found[1]) if found else None


def parse_free_memory(text: str) -> float | None:
    """Read macOS' memory_pressure: what isn't free counts as pressure."""
    found = re.search(r"free percentage:\s*(\d+)%", text)
    return 100.0 - float(found[1]) if found else None


def battery() -> tuple[float | None, bool]:
    """Return the battery's charge in percent, and whether the machine runs on it."""
    import psutil

    with suppress(OSError, AttributeError):
        found = psutil.sensors_battery()
        if found is not None:
            return float(found.percent), found.power_plugged is False
    return None, False


def temperature() -> float | None:
    """Return the warmest sensor's degrees Celsius."""
    import psutil

    with suppress(OSError, AttributeError):
        return warmest(
            one.current for sort in psutil.sensors_temperatures().values() for one in sort
        )
    return None


def warmest(degrees: Iterable[float]) -> float | None:
    """Return the highest of the degrees that a working sensor can show."""
    return max((float(one) for one in degrees if 0 < one < 150), default=None)


def idle() -> float | None:
    """Return the seconds since somebody used this machine's keyboard, mouse or a terminal of it."""
    if _IS_MAC:
        return parse_hid_idle(said_by("ioreg", "-c", "IOHIDSystem", "-d", "4"))
    known = [
        parse_x_idle(said_by("xprintidle") if os.environ.get("DISPLAY") else ""),
        parse_seat(said_by("loginctl", "show-seat", "seat0"), clock.now()),
        *_terminals(clock.now()),
    ]
    return min((one for one in known if one is not None), default=None)


def parse_hid_idle(text: str) -> float | None:
    """Read macOS' ioreg: nanoseconds, of the device that was used last."""
    found = re.findall(r'"HIDIdleTime"\s*=\s*(\d+)', text)
    return min((int(one) / 1e9 for one in found), default=None)


def parse_x_idle(text: str) -> float | None:
    """Read xprintidle: milliseconds."""
    return int(text) / 1000 if text.strip().isdecimal() else None


def parse_seat(text: str, now: float) -> float | None:
    """Read what logind says of the seat where one may sit; None when nobody is logged in there."""
    said = dict(line.partition("=")[::2] for line in text.splitlines())
    if not said.get("ActiveSession") or "IdleHint" not in said:
        return None
    if said["IdleHint"] == "no":
        return 0.0
    since = said.get("IdleSinceHint", "")
    return max(0.0, now - int(since) / 1e6) if since.isdecimal() and int(since) else None


def _terminals(now: float) -> list[float]:
    """Return how long ago something was typed into each terminal that somebody is logged in at.

    A job's own terminal isn't one of these.
    """
    import psutil

    seconds = []
    for user in psutil.users():
        if user.terminal:
            with suppress(OSError):
                seconds.append(max(0.0, now - os.stat(f"/dev/{user.terminal}").st_atime))
    return seconds


def said_by(program: str, *arguments: str) -> str:
    """Return what a program prints, nothing when it is missing, fails or hangs."""
    if shutil.which(program) is None:
        return ""
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


_IS_MAC = sys.platform == "darwin"
