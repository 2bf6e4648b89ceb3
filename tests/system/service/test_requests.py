"""What the file service answers, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from relayq import transfer
from tests.system.service.uploads import MB, begun
from tests.system.serving import free_port

pytestmark = pytest.mark.system


RANGES = [
    (None, 200, (0, 1000)),
    ("bytes=0-", 206, (0, 1000)),
    ("bytes=0-0", 206, (0, 1)),
    ("bytes=999-", 206, (999, 1000)),
    ("bytes=990-5000", 206, (990, 1000)),
    ("bytes=-10", 206, (990, 1000)),
    ("bytes=-5000", 206, (0, 1000)),
    ("bytes=1000-", 416, None),
    ("bytes=1000-1001", 416, None),
    ("bytes=-0", 416, None),
    ("bytes=5-2", 200, (0, 1000)),
    ("bytes=-", 200, (0, 1000)),
    ("bytes=0-1,5-6", 200, (0, 1000)),
    ("lines=1-2", 200, (0, 1000)),
    ("bytes=a-b", 200, (0, 1000)),
    ("bytes=99999999999999999999-", 200, (0, 1000)),
]


@pytest.mark.parametrize(("asked", "status", "span"), RANGES)
def test_a_range_gives_these_bytes(server, thousand, asked, status, span):
    sha256, content = thousand
    found, facts, body = server.ask("GET", sha256, **({"Range": asked} if asked else {}))

    assert found == status
    if span is None:
        assert facts["content-range"] == "bytes */1000"
    else:
        assert body == content[slice(*span)]
        assert facts["content-length"] == str(len(body))
        assert facts["etag"] == f'"{sha256}"'
    if status == 206:
        assert facts["content-range"] == f"bytes {span[0]}-{span[1] - 1}/1000"


def test_a_range_of_another_content_gives_all(server, thousand):
    sha256, content = thousand
    assert server.ask("GET", sha256, Range="bytes=5-", If_Range='"other"')[2] == content
    assert server.ask("GET", sha256, Range="bytes=5-", If_Range=f'"{sha256}"')[2] == content[5:]


def test_a_head_says_how_much_is_there(server, thousand):
    status, facts, body = server.ask("HEAD", thousand[0])
    assert (status, facts["content-length"], body) == (200, "1000", b"")

    content = os.urandom(3 * MB)
    digest, partial = begun(server, content, 2 * MB)
    status, facts, _ = server.ask("HEAD", digest.sha256)
    assert (status, facts["upload-offset"]) == (404, str(partial.stat().st_size))
    assert server.ask("GET", digest.sha256)[0] == 404


BAD_PUTS = [
    ({"Content_Range": "bytes 5-9/10"}, b"12345", 409, "wrong_offset"),
    ({"Content_Range": "bytes 0-9/10"}, b"12345", 400, "bad_range"),
    ({"Content_Range": "bytes 0-4/3"}, b"12345", 413, "too_large"),
    ({"Content_Range": "bytes 9-5/10"}, b"12345", 400, "bad_range"),
    ({"Content_Range": "octets 0-4/5"}, b"12345", 400, "bad_range"),
    ({"Content_Range": "bytes 0-4/*"}, b"12345", 400, "bad_range"),
    ({"Content_Length": "99999999999999999"}, None, 411, "length_required"),
    ({"Content_Length": str(1 << 51)}, None, 413, "too_large"),
    ({"Content_Length": str(1 << 49)}, None, 507, "no_room"),
    ({"Transfer_Encoding": "chunked", "Content_Length": ""}, None, 400, ""),
]


@pytest.mark.parametrize(("headers", "body", "status", "code"), BAD_PUTS)
def test_an_upload_that_makes_no_sense_is_refused(server, headers, body, status, code):
    found, _, answer = server.ask("PUT", "b" * 64, body, **headers)

    assert found == status
    if code:
        said = json.loads(answer)["error"]
        assert said["code"] == code
        assert said["message"]
    assert server.ask("HEAD", "b" * 64)[1]["upload-offset"] == "0"


@pytest.mark.parametrize(
    "name",
    [
        "../../fleet.key",
        "..%2f..%2ffleet.key",
        "%2e%2e",
        "A" * 64,
        "a" * 63,
        "a" * 65,
        "a" * 63 + "%00",
        "a" * 63 + "\u0662".encode().decode("latin-1"),
        "partial",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_no_name_leads_out_of_the_directory(server, name, method):
    before = sorted(path for path in server.home.rglob("*") if "artifacts" not in path.parts)
    path = transfer.PATH + name.encode("latin-1").decode("ascii", "ignore")

    status, _, _ = server.ask(method, path, b"x" if method == "PUT" else None)

    assert status in (400, 404, 405, 307)
    assert before == sorted(p for p in server.home.rglob("*") if "artifacts" not in p.parts)


def test_nothing_but_health_is_told_without_a_token(server, thousand):
    for path in ("/api/v1/version", transfer.PATH + thousand[0], "/docs", "/openapi.json"):
        status, _, body = server.ask("GET", path, Authorization="")
        assert status in (401, 404)
        assert set(json.loads(body)["error"]) == {"code", "message", "hint"}
    assert json.loads(server.ask("GET", "/health")[2]) == {"status": "ok"}
    assert "relayq" in json.loads(server.ask("GET", "/api/v1/version")[2])


def test_its_files_are_for_its_owner_only(server, thousand):
    folder = server.home / "artifacts"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*"))


def test_giant_heads_are_refused(server):
    try:
        status, _, _ = server.ask("GET", "/api/v1/version", X_Much="x" * 2_000_000)
    except OSError:
        status = 400  # it hung up while that was on its way
    assert status == 400
    assert server.is_up()


def test_it_listens_on_one_address_only_and_refuses_all(server):
    argv = [os.sys.executable, "-m", "relayq", "serve", "--host", "0.0.0.0"]
    done = subprocess.run(argv, env=server._environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 125
    assert "every network this machine is in" in done.stderr


def test_a_second_one_in_the_same_home_says_so(server):
    argv = [os.sys.executable, "-m", "relayq", "serve", "--port", str(free_port())]
    done = subprocess.run(argv, env=server._environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 125
    assert "runs already" in done.stderr
    assert server.is_up()
