"""What Redis knows of jobs' files: small contents, who uses which, where the service is."""

from __future__ import annotations

import hashlib
import json
import os
import threading

import pytest

from relayq import clock
from relayq.artifacts import Artifacts
from relayq.config import Broker, Config, Serve
from relayq.contents import Digest
from relayq.errors import FileChanged, NoFileService
from relayq.model.files import INLINE
from relayq.signing import Signer
from relayq.store.artifacts import ANNOUNCED
from tests.redis.fleet import spec

CONTENT = b"\0some bytes\xff"
SHA = hashlib.sha256(CONTENT).hexdigest()


def ttl(store, name, suffix):
    return store.connection.ttl(store.keys(name, suffix))


def test_a_small_content_is_kept_until_the_last_job_that_uses_it_is_forgotten(store, fleet):
    one, other = (fleet.submit() for _ in range(2))
    store.artifacts.keep(SHA, CONTENT, job=one)
    store.artifacts.refer(other, [SHA], is_result=True)
    assert ttl(store, "artifact", SHA) == -1

    store.jobs.cancel(one)
    store.jobs.cancel(other)
    store.jobs.forget([one])
    assert ttl(store, "artifact", SHA) == -1
    store.jobs.forget([other])

    assert 0 < ttl(store, "artifact", SHA) <= 3600
    assert not store.connection.exists(store.keys("users", SHA), store.keys("files", one))


def test_what_is_kept_before_the_submit_goes_after_a_day_unless_the_job_comes(store, fleet):
    made = spec()
    job = made.id
    store.artifacts.keep(SHA, CONTENT, job=job)
    for name, suffix in (("artifact", SHA), ("users", SHA), ("files", job)):
        assert 0 < ttl(store, name, suffix) <= 86_400

    fleet.submit_all([made])

    assert store.artifacts.refer(job, [SHA])
    for name, suffix in (("artifact", SHA), ("users", SHA), ("files", job)):
        assert ttl(store, name, suffix) == -1


def test_many_contents_are_kept_in_one_go_each_once(store, fleet):
    one, other = (fleet.submit() for _ in range(2))
    more = hashlib.sha256(b"more").hexdigest()

    store.artifacts.keep_all([(SHA, one, CONTENT), (more, one, b"more"), (SHA, other, None)])
    store.artifacts.refer_all([(other, [more]), (one, [SHA, more])])

    assert (store.artifacts.read(SHA), store.artifacts.read(more)) == (CONTENT, b"more")
    for sha256 in (SHA, more):
        assert {user.job for user in store.artifacts.users(sha256)} == {one, other}
        assert ttl(store, "artifact", sha256) == -1


def test_a_job_that_never_comes_takes_no_content_away_from_one_that_is_there(store, fleet):
    job = fleet.submit()
    store.artifacts.keep(SHA, CONTENT, job=job)

    assert not store.artifacts.refer(spec().id, [SHA])

    assert ttl(store, "artifact", SHA) == -1
    assert ttl(store, "users", SHA) == -1


def test_an_empty_content_is_kept_as_well(store, fleet):
    nothing = hashlib.sha256(b"").hexdigest()
    store.artifacts.keep(nothing, b"", job=fleet.submit())

    assert store.artifacts.read(nothing) == b""
    assert store.artifacts.read(SHA) is None


def test_the_users_of_a_content_are_the_jobs_with_a_record(store, fleet):
    asked, made = (fleet.submit() for _ in range(2))
    store.artifacts.refer(asked, [SHA])
    store.artifacts.refer(made, [SHA], is_result=True)
    store.artifacts.refer(made, [SHA])
    store.artifacts.refer(spec().id, [SHA])
    store.jobs.cancel(made)

    users = {user.job: (user.has_ended, user.is_result) for user in store.artifacts.users(SHA)}

    assert users == {asked: (False, False), made: (True, True)}


def test_the_sweep_lets_go_of_what_jobs_used_that_are_gone(store, fleet):
    job = fleet.submit()
    store.artifacts.keep(SHA, CONTENT, job=job)
    store.connection.delete(store.keys("files", job))
    store.jobs.cancel(job)
    store.jobs.forget([job])
    assert ttl(store, "users", SHA) == -1

    store.sweep.step(lease=60, template="")
    while not store.sweep.is_at_start():
        store.sweep.step(lease=60, template="")

    assert not store.connection.exists(store.keys("users", SHA))
    assert ttl(store, "artifact", SHA) > 0


def test_one_file_service_is_announced_at_a_time(store, artifacts):
    assert artifacts.announced() is None

    assert artifacts.announce("one", {"port": 1}) is None
    assert artifacts.announce("other", {"port": 2}) == "one"
    assert artifacts.announced()["port"] == 1
    assert 0 < ttl(store, "fileserver", "") <= ANNOUNCED

    artifacts.withdraw("other")
    assert artifacts.announced() is not None
    artifacts.withdraw("one")
    assert artifacts.announce("other", {"port": 2}) is None


def test_who_only_has_redis_can_not_say_where_files_and_tokens_go(store, artifacts, fleet):
    lie = {"name": "x", "url": "http://evil.example", "host": "x", "port": 1, "at": clock.now()}
    stranger = Signer(b"another fleet's key, or a guess")

    for said in (
        json.dumps(lie).encode(),
        stranger.sign_note("fileserver", json.dumps(lie).encode()),
        fleet.signer.sign_note("schedule", json.dumps(lie).encode()),
        fleet.signer.sign_note("fileserver", json.dumps({**lie, "at": 0}).encode()),
    ):
        store.artifacts.announce(said)
        assert artifacts.service() is None

    # And it doesn't keep the real one silent.
    assert artifacts.announce("one", {"host": "10.0.0.7", "port": 8123, "url": None}) is None


@pytest.fixture
def artifacts(store, fleet, tmp_path):
    return Artifacts(store, Config(tmp_path / "home"), fleet.signer)


def test_a_small_file_travels_through_redis(artifacts, fleet, tmp_path):
    (tmp_path / "source").write_bytes(os.urandom(INLINE))
    job = fleet.submit()
    seen = []

    digest = artifacts.keep(tmp_path / "source", job=job)
    artifacts.fetch(digest, tmp_path / "back", mode=0o640, progress=lambda *at: seen.append(at))

    assert (tmp_path / "back").read_bytes() == (tmp_path / "source").read_bytes()
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o640
    assert seen == [(INLINE, INLINE)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "source"]


def test_a_larger_file_needs_the_service(artifacts, fleet, tmp_path):
    (tmp_path / "talk.mov").write_bytes(os.urandom(INLINE + 1))

    with pytest.raises(NoFileService, match=r"talk.mov has 262 kB: more than 256 KiB needs"):
        artifacts.keep(tmp_path / "talk.mov", job=fleet.submit())
    with pytest.raises(NoFileService, match="it isn't in Redis, and there is no file service"):
        artifacts.fetch(Digest(SHA, 12), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_small_file_that_was_changed_since_it_was_hashed_is_an_error(artifacts, fleet, tmp_path):
    (tmp_path / "source").write_bytes(b"one")
    before = Digest(hashlib.sha256(b"two").hexdigest(), 3)

    with pytest.raises(FileChanged):
        artifacts.keep(tmp_path / "source", job=fleet.submit(), digest=before)


def test_what_somebody_else_put_into_redis_is_not_taken_for_the_file(artifacts, store, fleet):
    digest = artifacts.keep_small(CONTENT, job=fleet.submit())
    assert artifacts.read_small(digest.sha256) == CONTENT

    store.connection.set(store.keys("artifact", digest.sha256), b"forged")

    assert artifacts.read_small(digest.sha256) is None


@pytest.mark.parametrize(
    ("broker", "serve", "announced", "url"),
    [
        (Broker(), Serve(), {}, "http://127.0.0.1:8123"),
        (Broker(host="pi4", was_given=True), Serve(), {}, "http://pi4:8123"),
        (Broker(host="fd00::1", was_given=True), Serve(), {}, "http://[fd00::1]:8123"),
        (Broker(url="unix:///run/redis.sock"), Serve(), {}, "http://127.0.0.1:8123"),
        (Broker(url="rediss://:pw@pi4:6380/1"), Serve(), {}, "http://pi4:8123"),
        (Broker(url="sentinel://a:1;b:2/main"), Serve(), {}, "http://10.0.0.7:8123"),
        (Broker(), Serve(), {"url": "https://files.example"}, "https://files.example"),
        (Broker(), Serve(url="http://here:1"), {"url": "https://x.example"}, "http://here:1"),
    ],
)
def test_the_service_is_where_this_machine_finds_the_broker(
    store, fleet, tmp_path, broker, serve, announced, url
):
    artifacts = Artifacts(store, Config(tmp_path, broker=broker, serve=serve), fleet.signer)
    assert artifacts.service() is None

    artifacts.announce("one", {"host": "10.0.0.7", "port": 8123, "url": None, **announced})

    service = artifacts.service(lasts=60)
    assert service.url == url
    fleet.signer.check_bearer(service.token, "files")


def test_several_threads_may_keep_the_same_file(artifacts, fleet, tmp_path):
    (tmp_path / "source").write_bytes(CONTENT)
    jobs = [fleet.submit() for _ in range(4)]
    threads = [
        threading.Thread(target=artifacts.keep, args=(tmp_path / "source",), kwargs={"job": job})
        for job in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    artifacts.fetch(Digest(SHA, len(CONTENT)), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT
