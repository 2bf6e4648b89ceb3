"""The two ways through the file service, cut, damaged and without room."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from relayq import transfer
from relayq.errors import FileChanged, NoRoom, TransferFailed
from relayq.signing import Signer
from relayq.transfer import Digest, Service
from tests.system.cutting import Link, TlsProxy
from tests.system.service.uploads import MB, begun, stored
from tests.system.serving import free_port, serving
from tests.waiting import until

pytestmark = pytest.mark.system


def test_a_file_goes_there_and_back_and_is_sent_once(server, link, source, tmp_path):
    digest = transfer.hash_file(source)
    seen = []
    transfer.put(server.service(link.port), source, digest, progress=lambda *at: seen.append(at))
    assert link.sent > digest.size
    assert seen[0] == (0, digest.size)
    assert seen[-1] == (digest.size, digest.size)

    link.sent = 0
    transfer.put(server.service(link.port), source, digest)
    assert link.sent < 1000

    target = tmp_path / "back"
    transfer.get(server.service(), digest, target, mode=0o640)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir() if ".part" in path.name] == []


@pytest.mark.parametrize("size", [0, 1, 262_144, 1 << 20])
def test_files_of_every_size_travel(server, tmp_path, size):
    (tmp_path / "source").write_bytes(random.Random(size).randbytes(size))
    digest = transfer.hash_file(tmp_path / "source")

    transfer.put(server.service(), tmp_path / "source", digest)
    transfer.get(server.service(), digest, tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == (tmp_path / "source").read_bytes()


CUTS = [0, 1, 40, 300, 700, 66_000, 1_000_000, 5 * MB - 1, 5 * MB + 300]


@pytest.mark.parametrize("cut", CUTS)
def test_an_upload_goes_on_where_it_was_cut(server, source, cut):
    digest = transfer.hash_file(source)
    # Of each three connections one asks how far it is, and is let through.
    link = Link(server.port, [1 << 40, cut, 1 << 40, cut, cut])

    transfer.put(server.service(link.port), source, digest)

    assert stored(server, digest).stat().st_size == digest.size
    # What was in the buffers on the way when the link was cut is sent again, and no more.
    assert link.sent < digest.size + 3 * MB
    link.close()


@pytest.mark.parametrize("cut", CUTS)
def test_a_download_goes_on_where_it_was_cut(server, source, tmp_path, cut):
    digest = transfer.hash_file(source)
    transfer.put(server.service(), source, digest)
    link = Link(server.port, [cut, cut + 1, cut])

    transfer.get(server.service(link.port), digest, tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert link.received < digest.size + 3 * MB
    link.close()


def test_a_download_that_was_given_up_is_gone_on_with_later(server, source, tmp_path):
    digest = transfer.hash_file(source)
    transfer.put(server.service(), source, digest)
    link = Link(server.port, [3 * MB])
    gone = Service(f"http://127.0.0.1:{link.port}", server.service().token)
    said = []
    threading.Thread(target=lambda: (until(lambda: not link.cuts, what=""), link.close())).start()

    with pytest.raises(TransferFailed, match="nothing moved for"):
        transfer.get(gone, digest, tmp_path / "back", patience=0.4, remark=said.append)
    assert said
    assert not (tmp_path / "back").exists()
    part = tmp_path / f"back.{digest.sha256[:8]}.part"
    has = part.stat().st_size
    assert has > 1 * MB

    fresh = Link(server.port)
    transfer.get(server.service(fresh.port), digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert fresh.received < digest.size - has + 10_000
    fresh.close()


def test_what_was_changed_in_a_part_is_found_out_and_fetched_anew(server, source, tmp_path):
    digest = transfer.hash_file(source)
    transfer.put(server.service(), source, digest)
    part = tmp_path / f"back.{digest.sha256[:8]}.part"
    part.write_bytes(b"x" * MB)

    transfer.get(server.service(), digest, tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert not part.exists()


def test_an_upload_goes_on_after_the_service_was_killed(source):
    with serving() as server:
        content = source.read_bytes()
        digest, partial = begun(server, content, 3 * MB)
        server.end(signal.SIGKILL)
        has = partial.stat().st_size
        assert 2 * MB < has < 4 * MB
        server.start()

        status, facts, _ = server.ask("HEAD", digest.sha256)
        assert (status, facts["upload-offset"]) == (404, str(has))
        link = Link(server.port)
        transfer.put(server.service(link.port), source, digest)

        assert link.sent < digest.size - has + 10_000
        assert stored(server, digest).read_bytes() == content
        assert not partial.exists()
        link.close()


def test_a_transfer_outlives_a_restart_of_the_service(source, tmp_path):
    source.write_bytes(os.urandom(40 * MB))
    digest = transfer.hash_file(source)
    with serving() as server:
        once = threading.Event()

        def kill(done: int, total: int) -> None:
            if done > total // 3 and not once.is_set():
                once.set()
                server.end(signal.SIGKILL)
                threading.Thread(target=server.start).start()

        transfer.put(server.service(), source, digest, progress=kill)
        assert once.is_set()
        once.clear()
        transfer.get(server.service(), digest, tmp_path / "back", progress=kill)
        assert once.is_set()
        until(server.is_up, within=30, what="the service to be up again")
    assert transfer.hash_file(tmp_path / "back") == digest


def test_of_two_who_send_the_same_one_waits_for_the_other(server, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(60 * MB))
    digest = transfer.hash_file(source)
    links = [Link(server.port) for _ in range(4)]
    errors = []

    def send(link: Link) -> None:
        try:
            transfer.put(server.service(link.port), source, digest)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=send, args=(link,)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not errors
    assert transfer.hash_file(stored(server, digest)) == digest
    # A refused one may have sent a few buffers before it heard of that.
    assert sum(link.sent for link in links) < digest.size * 1.5


def test_a_wrong_content_is_refused_and_nothing_stays_of_it(server):
    sha256 = hashlib.sha256(b"what was promised").hexdigest()

    status, _, body = server.ask("PUT", sha256, b"something else...")

    assert status == 422
    assert json.loads(body)["error"]["code"] == "content_mismatch"
    status, facts, _ = server.ask("HEAD", sha256)
    assert (status, facts["upload-offset"]) == (404, "0")
    assert not (server.home / "artifacts" / "partial" / sha256).exists()


@pytest.mark.parametrize("change", ["size", "content", "hash"])
def test_a_file_that_is_changed_while_it_is_sent_is_an_error(server, source, change):
    digest = transfer.hash_file(source)
    if change == "size":
        with source.open("ab") as file:
            file.write(b"!")
    elif change == "content":
        with source.open("r+b") as file:
            file.write(b"changed")

    def touch(done: int, total: int) -> None:
        if change == "hash":
            with source.open("r+b") as file:
                file.write(os.urandom(8))

    with pytest.raises(FileChanged, match="changed while it was sent"):
        transfer.put(server.service(), source, digest, progress=touch)
    assert not stored(server, digest).exists()


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (lambda signer: signer.bearer("files", -5), "expired"),
        (lambda signer: Signer(b"x" * 32).bearer("files", 60), "another fleet key"),
        (lambda signer: signer.bearer("admin", 60), "for admin"),
        (lambda signer: signer.bearer("files", 60)[:-1] + "0", "signature is wrong|expired"),
        (lambda signer: "", "no token"),
        (lambda signer: "x\tä", "no token"),
    ],
)
def test_a_bad_token_is_an_error_at_once(server, source, tmp_path, token, why):
    good = server.service()
    text = token(server.signer())
    bad = Service(good.url, text if text.isascii() else "x")
    digest = transfer.hash_file(source)
    began = time.monotonic()

    with pytest.raises(TransferFailed, match=f"refuses the token.*({why})"):
        transfer.put(bad, source, digest)
    with pytest.raises(TransferFailed, match="refuses the token"):
        transfer.get(bad, digest, tmp_path / "back")

    assert time.monotonic() - began < 10
    assert list(tmp_path.iterdir()) == [source]
    assert good.token not in repr(good)


def test_what_the_service_does_not_have_is_an_error_at_once(server, tmp_path):
    with pytest.raises(TransferFailed, match=r"doesn't have this file \(any more\)"):
        transfer.get(server.service(), Digest("0" * 64, 5), tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_a_full_quota_says_what_and_why(source):
    with serving(RELAYQ_SERVE__QUOTA="8MB") as server:
        transfer.put(server.service(), source, transfer.hash_file(source))
        source.write_bytes(os.urandom(6 * MB))
        digest = transfer.hash_file(source)

        with pytest.raises(NoRoom, match=r"6 MB more are over its quota of 8 MB") as caught:
            transfer.put(server.service(), source, digest)
        assert "serve.quota" in (caught.value.hint or "")

        status, _, body = server.ask("PUT", "a" * 64, None, Content_Length=str(9 * MB))
        assert (status, json.loads(body)["error"]["code"]) == (507, "no_room")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
def test_a_full_disk_here_is_a_clear_error_and_leaves_nothing(server, source, small_disk):
    source.write_bytes(os.urandom(30 * MB))
    digest = transfer.hash_file(source)
    transfer.put(server.service(), source, digest)

    with pytest.raises(NoRoom, match="no room for .*: no space left on device"):
        transfer.get(server.service(), digest, small_disk / "back")

    assert list(small_disk.iterdir()) == []


@pytest.mark.root
def test_a_full_disk_there_is_a_clear_error_and_leaves_nothing(source, small_disk):
    source.write_bytes(os.urandom(15 * MB))
    digest = transfer.hash_file(source)
    with serving(home=small_disk) as server:
        filled = small_disk / "others"

        def fill(done: int, total: int) -> None:
            if done > MB and not filled.exists():
                with suppress(OSError), filled.open("wb") as file:
                    while True:
                        file.write(b"x" * 65536)

        with pytest.raises(NoRoom, match="the disk of the file service"):
            transfer.put(server.service(), source, digest, progress=fill)
        filled.unlink()

        assert [p for p in (small_disk / "artifacts").rglob("*") if p.is_file()] == []
        source.write_bytes(os.urandom(24 * MB + 500_000))
        digest = transfer.hash_file(source)
        with pytest.raises(NoRoom, match="are left to the broker"):
            transfer.put(server.service(), source, digest)


def test_the_destination_may_be_a_link_and_only_the_link_is_replaced(server, source, tmp_path):
    digest = transfer.hash_file(source)
    transfer.put(server.service(), source, digest)
    (tmp_path / "other").write_text("keep me")
    (tmp_path / "back").symlink_to(tmp_path / "other")

    transfer.get(server.service(), digest, tmp_path / "back")

    assert (tmp_path / "other").read_text() == "keep me"
    assert not (tmp_path / "back").is_symlink()


def test_a_part_that_is_a_link_is_not_followed(server, source, tmp_path):
    digest = transfer.hash_file(source)
    transfer.put(server.service(), source, digest)
    (tmp_path / "other").write_text("keep me")
    (tmp_path / f"back.{digest.sha256[:8]}.part").symlink_to(tmp_path / "other")

    with pytest.raises(TransferFailed, match="can't be written"):
        transfer.get(server.service(), digest, tmp_path / "back")

    assert (tmp_path / "other").read_text() == "keep me"


def test_a_url_that_is_none_is_an_error_at_once(source):
    with pytest.raises(TransferFailed, match="can't be a file service's URL"):
        transfer.put(Service("ftp://x", "t"), source, transfer.hash_file(source))


def test_a_service_that_is_not_there_is_waited_for_as_long_as_asked(source):
    gone = Service(f"http://127.0.0.1:{free_port()}", "t")
    said: list[str] = []

    with pytest.raises(TransferFailed, match="connection refused; nothing moved"):
        transfer.put(gone, source, transfer.hash_file(source), patience=1.0, remark=said.append)

    assert len(said) == 1
    assert Path(source).name in said[0]


def test_a_file_that_can_not_be_read_is_an_error_at_once(server, source):
    digest = transfer.hash_file(source)
    source.unlink()

    with pytest.raises(TransferFailed, match="can't be read: no such file"):
        transfer.put(server.service(), source, digest)
    with pytest.raises(TransferFailed, match="can't be read"):
        transfer.hash_file(source.parent)


def test_it_may_be_behind_a_proxy_that_speaks_tls(server, source, tmp_path, monkeypatch):
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem".split()
    subprocess.run(["openssl", *words, *names], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    proxy = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    proxy.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    link = Link(server.port, [1 << 40, 3 * MB, 1 << 40, 1 << 40, 2 * MB])
    tls = TlsProxy(link.port, proxy)
    service = Service(f"https://localhost:{tls.port}/", server.service().token)
    digest = transfer.hash_file(source)

    transfer.put(service, source, digest)
    transfer.get(service, digest, tmp_path / "back")

    assert transfer.hash_file(tmp_path / "back") == digest
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(TransferFailed, match="certificate verify failed"):
        transfer.get(service, digest, tmp_path / "back")
    tls.close()
    link.close()
