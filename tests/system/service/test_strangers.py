"""Web pages, and others who have no business with the HTTP service."""

from __future__ import annotations

import json
import socket

import pytest

from relayq.serve.border import LARGEST_BODY, Border
from tests.system.serving import free_port

pytestmark = pytest.mark.system


def code(answer) -> str:
    status, _, body = answer
    return f"{status} {json.loads(body)['error']['code']}"


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("127.0.0.1:1", True),
        ("10.77.0.1", True),
        ("[::1]:80", True),
        ("[fd00::1]", True),
        ("100.64.3.2:22022", True),
        ("localhost:1", True),
        ("mini:1", True),
        ("Mini.local", True),
        ("mini.tail1234.ts.net.", True),
        ("files.example.org", True),
        ("evil.example", False),
        ("evil.example:22022", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example.", False),
        ("local.evil.example", False),
        ("ts.net.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("evil.example#.local", False),
        ("evil.example/.local", False),
        ("", False),
    ],
)
def test_a_name_that_a_stranger_can_have_is_not_this_services(host, is_own):
    assert Border(None, ["files.example.org"]).is_own(host) is is_own


@pytest.mark.parametrize("path", ["/health", "/api/v1/version", "/api/v1/files/" + "0" * 64])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_who_asks_by_a_foreign_name_is_told_nothing(server, path, method):
    found = server.ask(method, path, Host=f"evil.example:{server.port}")

    assert code(found) == "421 wrong_host"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_no_page_of_another_origin_asks_anything(server, thousand, headers):
    for method, path in (("GET", thousand[0]), ("PUT", thousand[0]), ("POST", "/api/v1/join")):
        found = server.ask(method, path, b"" if method == "PUT" else None, **headers)
        assert code(found) == "403 cross_origin"
        assert not any(name.startswith("access-control-") for name in found[1])


def test_a_preflight_is_answered_by_no_permission(server):
    asked = {"Origin": f"http://127.0.0.1:{server.port}", "Access_Control_Request_Method": "PUT"}
    status, facts, _ = server.ask("OPTIONS", "/api/v1/join", **asked)

    assert status == 405
    assert not any(name.startswith("access-control-") for name in facts)


@pytest.mark.parametrize(
    "sort", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_what_a_form_can_send_is_not_read(server, sort):
    assert code(server.ask("POST", "/api/v1/join", b"{}", Content_Type=sort)) == "415 wrong_type"


def test_large_bodies_are_refused_before_they_are_sent(server):
    json_type = {"Content_Type": "application/json"}
    found = server.ask("POST", "/api/v1/join", None, Content_Length=str(1 << 40), **json_type)
    assert code(found) == "413 too_large"

    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /api/v1/join HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        piece = b"%x\r\n%s\r\n" % (1 << 14, b" " * (1 << 14))
        try:
            for _ in range(LARGEST_BODY // (1 << 14) + 200):
                connection.sendall(piece)
        except OSError:
            return  # it was hung up on
        assert b" 413 " in connection.recv(4096)


def test_every_answer_tells_a_browser_to_keep_its_hands_off(server, thousand):
    for found in (server.ask("GET", "/health"), server.ask("GET", thousand[0])):
        facts = found[1]
        assert facts["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in facts["content-security-policy"]
        assert "server" not in facts


def test_one_machine_alone_can_not_take_all_connections():
    from relayq.serve.connections import PER_PEER
    from relayq.serve.program import _CONNECTIONS

    assert PER_PEER <= _CONNECTIONS // 2
    assert free_port()
