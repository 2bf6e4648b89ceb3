"""Addresses, ports, and the few words that are spoken with a server.

Importing redis would cost 80 ms of a command that only asks whether the broker is there.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from relayq.errors import RelayqError

# Below the ports that systems give to outgoing connections: those could take ours while the
# broker is down.
PORTS = range(21_000, 31_000)


#: All networks that a machine is in.
_EVERYWHERE = ("0.0.0.0", "::")


def is_everywhere(address: str) -> bool:
    """Tell whether an address stands for all networks that this machine is in."""
    from ipaddress import ip_address

    try:
        parsed = ip_address(address)
    except ValueError:
        return address in ("*", "0", "")
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_unspecified


def check_listen(address: str, *, is_encrypted: bool = False) -> None:
    """Refuse what is no address, and what stands for all of them unless it is encrypted."""
    from ipaddress import ip_address

    if is_everywhere(address) and not (is_encrypted and address in _EVERYWHERE):
        raise RelayqError(
            f"won't listen on {address!r}: that is every network this machine is in",
            hint="give this machine's address in your private network"
            + (f"; all are {' and '.join(_EVERYWHERE)}" if is_encrypted else ""),
        )
    try:
        ip_address(address)
    except ValueError:
        raise RelayqError(
            f"can't listen on {address!r}: it is no IP address",
            hint="give this machine's address in your private network",
        ) from None


def addresses(listen: str) -> list[str]:
    """Return the addresses to listen on: this machine itself, and the asked one."""
    # The one for all IPv4 networks has 127.0.0.1 among them, and Redis takes nothing twice.
    return list(dict.fromkeys(([] if listen == "0.0.0.0" else ["127.0.0.1"]) + [listen]))


def check_free(address: str, port: int) -> None:
    """Refuse an address that this machine doesn't have, and a port that is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as test:
        test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            test.bind((address, port))
        except OSError as error:
            hint = "--port N takes another port"
            if error.errno == errno.EADDRNOTAVAIL:
                hint = "give an address that this machine has"
            elif error.errno == errno.EACCES:
                hint = "--port N takes another port; those below 1024 are root's"
            raise RelayqError(
                f"can't listen on {address} port {port}: {error.strerror}", hint=hint
            ) from error


def free_port(listen: str) -> int:
    """Return a port that is free on the machine itself and on the asked address."""
    for port in secrets.SystemRandom().sample(PORTS, 50):
        with suppress(RelayqError):
            for address in addresses(listen):
                check_free(address, port)
            return port
    # Nothing can be bound: say why with the next one.
    return PORTS[0]


class Answer(NamedTuple):
    """What a server said: its pid if it is ready, or that it loads."""

    ready_pid: int | None = None
    is_loading: bool = False


def ask(
    port: int, user: str, secret: str, command: str = "PING", *, ca: Path | None = None
) -> Answer:
    """Send a command as a user; a server that isn't ours gives an empty answer.

    With `ca` it is asked over TLS, and must have a certificate of that authority.
    """
    request = f"AUTH {user} {secret}\r\n{command}\r\nINFO server\r\n".encode()
    try:
        with _connected(port, ca) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as replies:
                authorised, said, facts = (_reply(replies) for _ in range(3))
    except (OSError, ValueError):
        return Answer()
    if authorised != b"+OK":
        return Answer()
    if said.startswith(b"-LOADING"):
        return Answer(is_loading=True)
    match = re.search(rb"^process_id:(\d+)", facts, re.MULTILINE)
    return Answer(ready_pid=int(match[1]) if match else None)


def _connected(port: int, ca: Path | None) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=2.0)
    if ca is None:
        return plain
    import ssl

    try:
        context = ssl.create_default_context(cafile=os.fspath(ca))
        return context.wrap_socket(plain, server_hostname="127.0.0.1")
    except BaseException:
        plain.close()
        raise


def _reply(replies: BinaryIO) -> bytes:
    line = replies.readline().rstrip(b"\r\n")
    if line.startswith(b"$"):
        return replies.read(int(line[1:]) + 2)
    return line
