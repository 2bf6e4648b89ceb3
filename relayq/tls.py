"""Brokers over TLS: whose certificate isn't checked is spoken to by nobody, whoever gives the URL.

`rediss://host/0` alone means to Celery that any certificate will do, and so that anybody on the
way may read and answer. Here such a URL is refused, with the right one as hint.
"""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from relayq.errors import ConfigError

_CHECKED = ("ssl_cert_reqs", "required")
_ANY_CA = "/path/to/ca.crt"
_NO = ("0", "n", "no", "f", "false", "off")


def query(ca_file: str | os.PathLike[str] | None = None) -> str:
    """Return what of a broker's URL has its certificate checked; without a file by all CAs."""
    trusted = f"&ssl_ca_certs={quote(os.fspath(ca_file))}" if ca_file is not None else ""
    return f"?{'='.join(_CHECKED)}{trusted}"


def check(url: str) -> None:
    """Raise ConfigError unless a broker's URL is plain, or one whose certificate is checked."""
    try:
        why = fault(url)
    except ValueError as error:
        raise ConfigError(f"broker.url: {error}", hint="relayq config edit") from error
    if why is not None:
        raise ConfigError(f"broker.url: {why}", hint=f"its form: {right_form(url)}")


def fault(url: str) -> str | None:
    """Return what is wrong with the TLS of a broker's URL, None if nothing is.

    What is no URL at all is a ValueError.
    """
    parts = [urlsplit(one) for one in url.split(";")]
    # Whether a port is a number shows when it is asked for.
    _ = [part.port for part in parts]
    schemes = {part.scheme for part in parts}
    asked = dict(pair for part in parts for pair in parse_qsl(part.query))
    named = [name for name in asked if name.startswith("ssl_")]
    if "rediss" not in schemes and not named:
        return None
    if not schemes & {"rediss", "sentinel"}:
        return f"{min(named)} is for rediss://, and nothing here is encrypted"
    reqs = asked.get("ssl_cert_reqs")
    if reqs is None:
        return "without ssl_cert_reqs=required nobody checks who answers"
    if reqs != "required":
        return f"ssl_cert_reqs={reqs} lets anybody answer: it must be required"
    if asked.get("ssl_check_hostname", "yes").lower() in _NO:
        return "ssl_check_hostname=false lets any machine answer that has a certificate"
    return None


def ca_file_of(url: str) -> str | None:
    """Return the file of the CA that a broker's URL names, None for all that are trusted."""
    asked = dict(pair for one in url.split(";") for pair in parse_qsl(urlsplit(one).query))
    return asked.get("ssl_ca_certs")


def with_ca_file(url: str, file: str | os.PathLike[str]) -> str:
    """Return a broker's URL with another file in the place of the CA's."""
    return re.sub(r"(?<=[?&]ssl_ca_certs=)[^&;]*", lambda _: quote(os.fspath(file)), url)


def right_form(url: str) -> str:
    """Return how a refused URL is to be written, without its password."""
    first, *others = url.split(";")
    part = urlsplit(first)
    kept = dict([_CHECKED, ("ssl_ca_certs", _ANY_CA), *parse_qsl(part.query), _CHECKED])
    kept.pop("ssl_check_hostname", None)
    scheme = "sentinel" if part.scheme == "sentinel" else "rediss"
    login, at, host = part.netloc.rpartition("@")
    netloc = f"{login.partition(':')[0]}:...@{host}" if at else host
    asked = urlencode(kept, safe="/:")
    shown = urlunsplit((scheme, netloc, part.path or "/0", asked, ""))
    return ";".join([shown, *(["..."] if others else [])])
