"""The private broker over TLS: by which names it is known, and a server that can do it."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from relayq.embedded.certificates import Authority
from relayq.embedded.settings import Encryption
from relayq.embedded.sockets import is_everywhere
from relayq.errors import RelayqError

#: No server has it: the first directive that isn't known ends the start, and is named.
_UNKNOWN = "relayq-asks"


def encryption(folder: Path, listen: str, further: Sequence[str] = ()) -> Encryption:
    """Return the files of a broker that listens there; made when they are missing or too old."""
    return Authority(folder).issue(folder, [*names(listen), *further])


def names(listen: str) -> list[str]:
    """Return what others may call this machine's broker: addresses, and this machine's name."""
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    addresses = _addresses() if is_everywhere(listen) else [listen]
    found = ["127.0.0.1", "localhost", own, short, f"{short}.local", *addresses]
    return [name for name in dict.fromkeys(found) if name.isascii() and name.strip(".")]


def _addresses() -> list[str]:
    """Return every address that this machine has now, but those that hold on one cable only."""
    import psutil

    found = [
        address.address
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return [address for address in found if "%" not in address]


def check_server(server: Path) -> None:
    """Raise unless the server was built with TLS; it reads its configuration and ends."""
    done = subprocess.run(
        [server, "-"],
        input=f"tls-port 0\n{_UNKNOWN} yes\n",
        capture_output=True,
        text=True,
        timeout=10,
    )
    if _UNKNOWN not in done.stdout + done.stderr:
        raise RelayqError(
            f"{server} was built without TLS",
            hint="sudo apt install redis-server, or brew install redis; RELAYQ_REDIS_SERVER names "
            "the one to use",
        )
