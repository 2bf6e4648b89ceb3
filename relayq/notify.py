"""What a program says to the service manager that started it: sd_notify(3) of systemd.

Started by anything else, it says nothing, and every call is harmless.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

_LAUNCHD = "dev.relayq."


class Supervisor:
    """The service manager above this process, if there is one.

    Takes what it left in the environment: it is meant for this process, and not for those that
    this one starts.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self.address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        environ.pop("WATCHDOG_PID", None)
        #: After how much silence it ends us; None if it doesn't.
        self.patience = int(microseconds) / 1e6 if microseconds.isdecimal() else None
        #: launchd starts again what has ended, and can't see what hangs.
        self.is_launchd = environ.get("XPC_SERVICE_NAME", "").startswith(_LAUNCHD)

    @property
    def hears(self) -> bool:
        """Whether anybody hears what is said."""
        return bool(self.address)

    def ready(self, status: str = "") -> None:
        """Say that the start is over."""
        self._say("READY=1", status and f"STATUS={_line(status)}")

    def alive(self, status: str = "") -> None:
        """Say that all is well, before its patience ends."""
        self._say("WATCHDOG=1", status and f"STATUS={_line(status)}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._say("STOPPING=1")

    def _say(self, *lines: str) -> None:
        if not self.address:
            return
        # A leading @ is systemd's way to write a name outside of the file system.
        address = f"\0{self.address[1:]}" if self.address[0] == "@" else self.address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(1.0)
            channel.sendto("\n".join(filter(None, lines)).encode(), address)


def _line(text: str) -> str:
    return " ".join(text.split())
