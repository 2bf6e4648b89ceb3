"""Hears from logind when this machine is about to sleep or to halt (Linux).

A program that comes with D-Bus prints logind's signals; a delay inhibitor gives the worker the
moment that it needs to say good night to its fleet. Where either is missing, nothing happens.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from time import monotonic  # stands still while the machine sleeps

from relayq.host.awake import Inhibitor, delaying_argv
from relayq.model.hosts import GOES_TO_SLEEP, SHUTS_DOWN

log = logging.getLogger(__name__)

_REASONS = {"Shutdown": SHUTS_DOWN, "Sleep": GOES_TO_SLEEP}
#: All reasons.
NIGHTS = frozenset(_REASONS.values())
_SIGNAL = re.compile(
    r"\bInterface=org\.freedesktop\.login1\.Manager +Member=PrepareFor(Sleep|Shutdown)\b"
    r"|\binterface=org\.freedesktop\.login1\.Manager; member=PrepareFor(Sleep|Shutdown)\b"
    r"|^/org/freedesktop/login1: org\.freedesktop\.login1\.Manager\.PrepareFor(Sleep|Shutdown) "
)
_VALUE = re.compile(r"\b(true|false)\b")
_LOGIND, _PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
_MATCH = f"type='signal',sender='{_LOGIND}',path='{_PATH}',interface='{_LOGIND}.Manager'"
#: Ends the program below it when our end of its input is closed, be it by our death.
_LEASH = '"$@" </dev/null & exec >/dev/null; cat; kill $!'

#: How long the machine is kept from sleeping until a beat was answered; logind allows 5 s.
_GOOD_NIGHT = 1.5
#: A machine that is awake so long after it said that it goes to sleep has thought better of it.
_LONGEST = 120.0
#: A program that ends sooner has nothing to listen to here.
_YOUNG = 10.0


def listening_argv(
    platform: str = sys.platform, which: Callable[[str], str | None] = shutil.which
) -> list[str] | None:
    """Return the command that prints logind's signals, None without one."""
    if platform != "linux":
        return None
    if tool := which("gdbus"):
        return [tool, "monitor", "--system", "--dest", _LOGIND, "--object-path", _PATH]
    if tool := which("dbus-monitor"):
        return [tool, "--system", _MATCH]
    if tool := which("busctl"):
        # For root only.
        return [tool, "monitor", "--system", f"--match={_MATCH}"]
    return None


class Notices:
    """Reads what such a program prints, line by line."""

    def __init__(self) -> None:
        self._about = ""

    def read(self, line: str) -> tuple[str, bool] | None:
        """Return "Sleep" or "Shutdown", and whether it begins (else it is over), or None."""
        found = _SIGNAL.search(line)
        if found is not None:
            self._about = next(filter(None, found.groups()))
            line = line[found.end() :]
        elif line[:1].strip():
            self._about = ""  # another message
        value = _VALUE.search(line)
        if not self._about or value is None:
            return None
        about, self._about = self._about, ""
        return about, value[1] == "true"


class Bedtime:
    """Why this machine takes nothing new just now; `on_change` is called when that changes."""

    def __init__(
        self,
        on_change: Callable[[], None],
        *,
        listen: list[str] | None = None,
        delay: list[str] | None = None,
    ) -> None:
        self._on_change = on_change
        self._argv = listen or listening_argv()
        self._delay = Inhibitor(
            delay or delaying_argv(), "delay its sleep for a beat", level=logging.DEBUG
        )
        self._since: dict[str, float] = {}
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    @property
    def reason(self) -> str:
        """What is about to happen to the machine, empty for nothing."""
        with self._lock:
            return next((said for about, said in _REASONS.items() if about in self._since), "")

    def listen(self) -> None:
        """Listen from now on, in a thread."""
        if self._argv is None:
            log.debug("nothing here tells when the machine goes to sleep")
            return
        threading.Thread(
            target=self._listen, args=(self._argv,), name="bedtime", daemon=True
        ).start()

    def look(self) -> None:
        """Let the machine sleep if that took too long, and forget a sleep that never came."""
        at = monotonic()
        with self._lock:
            if any(at - since > _GOOD_NIGHT for since in self._since.values()):
                self._delay.release()
            self._since = {a: since for a, since in self._since.items() if at - since < _LONGEST}

    def told(self, reason: str) -> None:
        """Let the machine sleep: its fleet knows the reason."""
        with self._lock:
            if any(_REASONS[about] == reason for about in self._since):
                self._delay.release()

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            self._is_closed = True
            self._delay.release()
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()

    def _listen(self, argv: list[str]) -> None:
        began, is_heard = 0.0, True
        while is_heard and not self._is_closed:
            began = monotonic()
            try:
                self._follow(argv)
            except OSError as error:
                log.debug("can't listen to logind: %s", error)
            self._turn(dict.fromkeys(_REASONS, False))
            # It may be the bus that was started again.
            is_heard = monotonic() - began > _YOUNG
        if not self._is_closed:
            log.debug("nothing here tells when the machine goes to sleep: %s ended", argv[0])
        with self._lock:
            self._delay.release()

    def _follow(self, argv: list[str]) -> None:
        """Start the program and take in what it says, to its end."""
        with subprocess.Popen(
            ["/bin/sh", "-c", _LEASH, "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            cwd="/",
        ) as process:
            with self._lock:
                self._process = process
                if not self._is_closed:
                    self._delay.hold()
                elif process.stdin is not None:
                    process.stdin.close()
            notices = Notices()
            for line in process.stdout or ():
                if notice := notices.read(line):
                    self._turn(dict([notice]))
            with self._lock:
                self._process = None

    def _turn(self, notices: dict[str, bool]) -> None:
        with self._lock:
            before = set(self._since)
            for about, begins in notices.items():
                if begins:
                    self._since.setdefault(about, monotonic())
                else:
                    self._since.pop(about, None)
            has_changed = before != set(self._since)
            if has_changed and not self._since and not self._is_closed:
                self._delay.hold()
        if has_changed and not self._is_closed:
            self._on_change()
