"""The only clock: wall time for people, boot time for permits and deadlines.

Redis has its own clock for leases (`TIME` inside the scripts); nothing here decides one.
"""

from __future__ import annotations

import os
import time

# Linux counts suspend in CLOCK_BOOTTIME; on macOS CLOCK_MONOTONIC does (mach_continuous_time),
# while time.monotonic() there is mach_absolute_time and stands still in sleep (cpython #86273).
_BOOT_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Return the wall clock in Unix seconds (UTC)."""
    return time.time()


def boottime() -> float:
    """Return the seconds since this machine started, time asleep included."""
    return time.clock_gettime(_BOOT_CLOCK)


def sleep(duration: float) -> None:
    """Sleep for `duration` seconds."""
    time.sleep(duration)


def boot_id() -> str:
    """Return what tells this boot of this machine from every other."""
    # No pathlib here: it would cost each fork server a megabyte.
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as linux:
            return linux.read().strip()
    except FileNotFoundError:
        return f"boot-{round(now() - boottime(), -1):.0f}"


def zone() -> str:
    """Return the name of this machine's time zone, such as Europe/Berlin; UTC if it has none."""
    # Not on top: each fork server imports this module.
    import re

    named = os.environ.get("TZ", "").removeprefix(":")
    if not re.fullmatch(r"[A-Za-z_]+(/[\w+-]+)*", named):
        # Linux and macOS have a link into the directory of zones there.
        _, _, named = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    return "UTC" if named in ("", "Etc/UTC", "Etc/UCT") else named.removeprefix("posix/")
