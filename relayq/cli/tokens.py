"""`relayq broker token`: one line that lets one more machine into the fleet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from relayq.cli.options import duration_option, json_option, quiet_option
from relayq.cli.services import answer, load_config, remark
from relayq.cli.texts import instant, number_of, rfc3339
from relayq.errors import BrokerUnavailable, Conflict, RelayqError
from relayq.parsing import host_name

if TYPE_CHECKING:
    from relayq.config import Config

_LONGEST = 30 * 86_400.0
_LOOPBACK = ("127.0.0.1", "::1")


def host_name_option(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    """Return a host's name as it was typed."""
    try:
        return None if text is None else host_name(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}, got {text!r}") from error


@click.command("token")
@click.option(
    "--host",
    metavar="NAME",
    callback=host_name_option,
    help="Only for a machine that is to be called so, also in the place of an older one.",
)
@click.option("--client", is_flag=True, help="For a machine that submits and runs nothing.")
@click.option("--expires", metavar="TIME", default="24h", help="How long it is good (24h).")
@click.option("--qr", is_flag=True, help="Draw it as a QR code, too.")
@click.option("--void", is_flag=True, help="Instead make all tokens void that nobody used yet.")
@quiet_option
@json_option
def token(
    host: str | None,
    client: bool,
    expires: str,
    qr: bool,
    void: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Print a token with which one more machine joins: there, relayq join TOKEN.

    It lets one machine in, once, and then stands for nothing. Until then who sees it can join.

    Example: relayq broker token --expires 1h --qr
    """
    from relayq.cli import show
    from relayq.embedded.admission import make_ticket, void_tickets
    from relayq.model.access import CLIENT, WORKER

    config = load_config()
    if void:
        count = void_tickets(config)
        answer(f"{number_of(count, 'token')} made void", as_json, {"voided": count})
        return
    lasts = duration_option(expires)
    if lasts > _LONGEST:
        raise click.BadParameter("a token is good for 30 days at most", param_hint="--expires")
    urls = _urls(config)
    role = CLIENT if client else WORKER
    made, ticket = make_ticket(config, urls, role=role, host=host, lasts=lasts)
    command = f"relayq join {made.text}"
    if as_json:
        show.print_json(
            {
                "token": made.text,
                "command": command,
                "urls": list(urls),
                "role": role,
                "host": host,
                "expires_at": rfc3339(ticket.expires),
            }
        )
        return
    # For a person the line to paste; for a script the token.
    click.echo(command if sys.stdout.isatty() else made.text)
    if qr:
        _draw(made.text)
    if not quiet:
        what = f"the machine {host}" if host else "one machine"
        remark(f"good for {what}, to join as {role}, until {instant(ticket.expires)}")
        if not sys.stdout.isatty():
            remark("there: relayq join TOKEN, or relayq join - with it on the input")
        if config.broker.is_configured:
            remark("this broker isn't relayq's own: the token gives away its one password")


def _urls(config: Config) -> tuple[str, ...]:
    """Return where this machine's service is found by others; starts it where need be."""
    from relayq import embedded

    _check_place(config)
    if not embedded.can_serve_files():
        raise RelayqError(
            "tokens need the HTTP service of this machine, which isn't installed",
            hint="pip install 'relayq[serve]'",
        )
    _check_hosts(config)
    if embedded.files_pid(config) is None and embedded.start_files(config) is None:
        raise RelayqError(
            "the HTTP service of this machine doesn't run (serve.start: no)",
            hint="relayq serve, or relayq serve install",
        )
    if config.serve.url is not None:
        return (config.serve.url,)
    hosts, port = embedded.files_place(config)
    others = [host for host in hosts if host not in _LOOPBACK]
    return tuple(f"http://{f'[{host}]' if ':' in host else host}:{port}" for host in others)


def _check_hosts(config: Config) -> None:
    """Refuse where others can't reach this machine."""
    from relayq import embedded

    if config.serve.url is not None:
        return
    others = [host for host in embedded.files_place(config)[0] if host not in _LOOPBACK]
    if others:
        _check_broker(config, others[-1])
        return
    if not config.broker.is_configured and embedded.broker_authority(config) is not None:
        raise Conflict(
            "the broker may listen everywhere; where its HTTP service does isn't said",
            hint=f"serve.host: {mesh_address() or 'ADDRESS'} in config.yml; relayq down, relayq up",
        )
    raise Conflict("others can't reach this machine: it listens to itself only", hint=_listening())


def _check_broker(config: Config, host: str) -> None:
    """Refuse where the file service can be reached by others and the private broker can't."""
    import socket

    from relayq import embedded

    facts = None if config.broker.is_configured else embedded.running_broker(config)
    if facts is None:
        return
    try:
        socket.create_connection((host, facts.port), 2.0).close()
    except OSError as error:
        raise Conflict(
            f"the broker doesn't answer at {host} port {facts.port}", hint=_listening()
        ) from error


def _check_place(config: Config) -> None:
    """Refuse where no token can be made: without a broker, or on a machine that joined by one."""
    from relayq import embedded
    from relayq.joining import membership

    if config.broker.is_configured:
        if (member := membership(config)) is not None:
            raise Conflict(
                f"this machine joined {member.fleet} itself",
                hint=f"make the token on {member.fleet}: relayq broker token",
            )
        if (urlsplit(config.broker.url or "").hostname or "") in (*_LOOPBACK, "localhost"):
            raise Conflict(
                "broker.url has an address that means another machine everywhere else",
                hint="in config.yml, give it the address of this machine in your network",
            )
        return
    if embedded.running_broker(config) is None:
        raise BrokerUnavailable("no broker runs here", hint=_listening(is_up=False))


def _listening(*, is_up: bool = True) -> str:
    """Return how to have the broker listen to others, with this machine's address in its mesh."""
    found = mesh_address()
    stop = "relayq down, then " if is_up else ""
    return f"{stop}relayq broker start --listen {found or 'ADDRESS'}, and relayq up"


def mesh_address() -> str | None:
    """Return this machine's address in Tailscale's network, None if it has none."""
    import socket
    from ipaddress import ip_address, ip_network

    import psutil

    mesh = ip_network("100.64.0.0/10")
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and ip_address(entry.address) in mesh
    ]
    return min(found, default=None)


def _draw(text: str) -> None:
    """Draw a QR code where a person sees it."""
    try:
        import segno
    except ImportError:
        remark("no QR code: it needs pip install 'relayq[qr]'")
        return
    drawn: Any = segno.make(text, error="l", micro=False)
    drawn.terminal(out=sys.stderr, compact=True, border=2)
