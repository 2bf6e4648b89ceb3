"""Uploads to the file service, as its disk has them."""

from __future__ import annotations

import hashlib
import http.client

from relayq import transfer
from relayq.transfer import Digest
from tests.waiting import until

MB = 1_000_000


def stored(server, digest):
    return server.home / "artifacts" / digest.sha256[:2] / digest.sha256


def begun(server, content, size):
    """Leave an upload behind of which some bytes came."""
    sha256 = hashlib.sha256(content).hexdigest()
    partial = server.home / "artifacts" / "partial" / sha256
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("PUT", transfer.PATH + sha256)
    connection.putheader("Authorization", f"Bearer {server.service().token}")
    connection.putheader("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
    connection.putheader("Content-Length", str(len(content)))
    connection.endheaders(content[:size])
    # One that is cut before the service has looked at it leaves nothing.
    until(
        lambda: partial.exists() and partial.stat().st_size > 0, within=15, what="the first bytes"
    )
    connection.close()
    until(lambda: not is_busy(server, sha256), within=15, what="the service to notice the cut")
    return Digest(sha256, len(content)), partial


def is_busy(server, sha256):
    status, _, body = server.ask(
        "PUT", sha256, b"x", Content_Range=f"bytes {1 << 40}-{1 << 40}/{(1 << 40) + 1}"
    )
    assert status in (409, 423), body
    return status == 423
