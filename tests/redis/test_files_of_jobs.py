"""The files of jobs, on a store: what a submit sends, and what is fetched of the results."""

import hashlib
import os
from contextlib import contextmanager

import pytest

from relayq.client import Relay
from relayq.config import install_id
from relayq.errors import (
    Conflict,
    FileChanged,
    NoFileService,
    NoRoom,
    OutputUnavailable,
    RelayqError,
    Unplaceable,
)
from relayq.model.files import INLINE, FileIn, Kept
from relayq.model.jobs import JobState, Outcome
from relayq.session import Session

LARGE = b"0123456789abcdef" * (INLINE // 16 + 1)


@pytest.fixture
def shown():
    """What a terminal was told of files on their way."""
    return []


@pytest.fixture
def job(fleet, store, home, tmp_path, monkeypatch, shown):
    """What a program calls, in a directory of its own, on a broker without a file service."""
    monkeypatch.chdir(tmp_path)
    (home / "config.yml").write_text("broker: {host: 127.0.0.1}\n")

    @contextmanager
    def shows(what, name, size):
        shown.append((what, os.path.basename(name), size))
        yield lambda done, total: None

    relay = Relay(home=home)
    relay._session = Session(store, fleet.signer, print, shows=shows, config=relay.config)
    return relay.job


@pytest.fixture
def host(fleet):
    return fleet.host("pi4")


def declare(fleet, host, **facts):
    """Have a host say this of itself."""
    fleet.store.hosts.register(
        host.who,
        lease=60.0,
        key_id=fleet.signer.key_id,
        slots=2,
        version="0.1.0",
        facts={"os": "linux", **facts},
    )


def inputs(result):
    return [FileIn.from_dict(one) for one in result.record.spec.files_in]


def brings(fleet, host, store, result, *files, state=JobState.SUCCEEDED):
    """End a job as its worker does, with these contents: (name, bytes), or a Kept."""
    token = host.start(result.id)
    kept = []
    for one in files:
        if not isinstance(one, Kept):
            name, content = one
            sha256 = hashlib.sha256(content).hexdigest()
            store.artifacts.keep(sha256, content, job=result.id, is_result=True)
            one = Kept(name, sha256, len(content))
        kept.append(one.as_dict())
    outcome = Outcome(
        id=token.id,
        attempt=token.attempt,
        uid=token.uid,
        host=host.name,
        state=state,
        reason="exit",
        files=tuple(kept),
    )
    signed = fleet.signer.sign_outcome(outcome)
    word = store.leases.finish(token, state, reason="exit", outcome=signed, template="{}")
    assert word == state
    return result


# What a submit sends


def test_a_small_file_travels_through_redis(job, host, store, tmp_path, shown):
    (tmp_path / "a.txt").write_bytes(b"hello")

    result = job.run("cat b.txt", files_in=["a.txt:b.txt"])

    [sent] = inputs(result)
    assert sent.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert (sent.dest, sent.source, sent.size) == ("b.txt", str(tmp_path / "a.txt"), 5)
    assert store.artifacts.read(sent.sha256) == b"hello"
    assert shown == [("sending", "a.txt", 5)]


def test_a_large_file_without_a_service_is_refused_before_it_is_read(job, host, tmp_path, shown):
    (tmp_path / "talk.mov").write_bytes(LARGE)

    with pytest.raises(NoFileService, match=r"talk\.mov has 262 kB: .* the file service") as caught:
        job.run("true", files_in=["talk.mov"])

    assert "relayq serve" in str(caught.value.hint)
    assert shown == []
    assert job.list() == []


def test_what_every_host_reads_where_it_lies_is_neither_sent_nor_read(
    fleet, job, home, tmp_path, shown
):
    (tmp_path / "talk.mov").write_bytes(LARGE)
    declare(fleet, fleet.host("mini"), paths=[str(tmp_path)])
    own = fleet.host("own", install=install_id(home))
    declare(fleet, own)

    result = job.run("true", files_in=["talk.mov"])

    [file] = inputs(result)
    assert (file.sha256, file.size) == ("", len(LARGE))
    assert shown == []
    # What comes later may not read it.
    assert result.record.spec.on == ("mini", "own")


def test_a_file_that_one_of_the_hosts_does_not_read_is_sent(fleet, job, host, tmp_path):
    (tmp_path / "talk.mov").write_bytes(LARGE)
    declare(fleet, fleet.host("mini"), paths=[str(tmp_path)])

    with pytest.raises(NoFileService):
        job.run("true", files_in=["talk.mov"])

    assert job.run("true", host="mini", files_in=["talk.mov"]).record.spec.host == "mini"


def test_a_link_into_a_share_is_taken_for_what_it_leads_to(fleet, job, tmp_path):
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "talk.mov").write_bytes(LARGE)
    (tmp_path / "films").symlink_to("share")
    declare(fleet, fleet.host("mini"), paths=[str(tmp_path / "share")])

    [file] = inputs(job.run("true", files_in=["films/talk.mov"]))

    assert (file.source, file.sha256) == (str(tmp_path / "share" / "talk.mov"), "")


def test_a_path_map_counts_at_the_borders_of_names_only(fleet, job, tmp_path):
    (tmp_path / "films2").mkdir()
    (tmp_path / "films2" / "talk.mov").write_bytes(LARGE)
    declare(fleet, fleet.host("mini"), paths=[str(tmp_path / "films")])

    with pytest.raises(NoFileService):
        job.run("true", files_in=["films2/talk.mov"])


def test_nothing_is_sent_for_a_job_that_no_host_can_take(job, host, tmp_path, shown):
    (tmp_path / "a.txt").write_bytes(b"hello")

    with pytest.raises(Unplaceable):
        job.run("true", needs=["cuda"], files_in=["a.txt"])

    assert shown == []
    assert job.run("true", needs=["cuda"], files_in=["a.txt"], wait_for_host=True).is_new


def test_a_file_that_changes_while_it_is_sent_queues_nothing(job, host, tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_bytes(b"hello")
    artifacts = job.relay.session().artifacts
    keep = artifacts.keep_inputs

    def slowly(contents):
        keep(contents)
        file.write_bytes(b"hello again")

    monkeypatch.setattr(artifacts, "keep_inputs", slowly)

    with pytest.raises(FileChanged, match=r"a\.txt was changed while it was sent .* queued"):
        job.run("true", files_in=["a.txt"])

    assert job.list() == []


def test_a_file_of_several_jobs_is_sent_once(job, host, tmp_path, store):
    (tmp_path / "a.txt").write_bytes(b"hello")

    results = job.submit_many([{"cmd": "cat a.txt", "files_in": ["a.txt"]}] * 3)

    assert len({one.sha256 for result in results for one in inputs(result)}) == 1
    sha256 = inputs(results[0])[0].sha256
    users = {user.job for user in store.artifacts.users(sha256)}
    assert users >= {result.id for result in results}


def test_a_plan_looks_at_files_and_sends_none(job, host, tmp_path, shown):
    (tmp_path / "a.txt").write_bytes(b"hello")

    spec = job.plan("run_command", cmd="true", files_in=["a.txt"], files_out=["*.mp4:out/"])

    assert [one["dest"] for one in spec.files_in] == ["a.txt"]
    assert [one["dest"] for one in spec.files_out] == [f"{tmp_path}/out/"]
    assert shown == []
    with pytest.raises(RelayqError, match="can't be taken along"):
        job.plan("run_command", cmd="true", files_in=["b.txt"])


def test_many_hosts_bring_no_files_back(job, host):
    with pytest.raises(RelayqError, match="many hosts can't all bring back the same file"):
        job.broadcast("true", files_out=["a"])


# What is fetched


def test_result_files_come_into_the_current_directory(fleet, job, host, store, tmp_path, shown):
    result = job.run("true", files_out=["out/*", "log.txt"])
    assert list(result.files) == []
    brings(fleet, host, store, result, ("out/a.txt", b"A"), ("log.txt", b"L"))

    assert [kept.name for kept in result.files] == ["out/a.txt", "log.txt"]
    assert result.fetch() == [str(tmp_path / "a.txt"), str(tmp_path / "log.txt")]
    assert (tmp_path / "a.txt").read_bytes() == b"A"
    assert (tmp_path / "log.txt").read_bytes() == b"L"
    assert shown == [
        ("fetching", "a.txt", 1),
        ("fetching", "log.txt", 1),
    ]


def test_a_fetched_file_has_its_mode_and_nothing_beyond_it(fleet, job, host, store, tmp_path):
    result = job.run("true", files_out=["tool"])
    sha256 = hashlib.sha256(b"x").hexdigest()
    store.artifacts.keep(sha256, b"x", job=result.id, is_result=True)
    brings(fleet, host, store, result, Kept("tool", sha256, 1, mode=0o104755))

    result.fetch()

    assert (tmp_path / "tool").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    ("dest", "where"), [("new/", "new/a.txt"), ("old", "old/a.txt"), ("b.txt", "b.txt")]
)
def test_one_file_goes_into_a_directory_or_gets_a_new_name(
    dest, where, fleet, job, host, store, tmp_path
):
    (tmp_path / "old").mkdir()
    result = brings(fleet, host, store, job.run("true", files_out=["a.txt"]), ("a.txt", b"A"))

    assert result.fetch(dest) == [str(tmp_path / where)]
    assert (tmp_path / where).read_bytes() == b"A"


def test_several_files_need_a_directory(fleet, job, host, store, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    result = job.run("true", files_out=["*"])
    brings(fleet, host, store, result, ("a", b"A"), ("b", b"B"))

    with pytest.raises(RelayqError, match="file is no directory"):
        result.fetch("file")
    assert result.fetch("new") == [str(tmp_path / "new" / "a"), str(tmp_path / "new" / "b")]
    assert result.fetch("one/", names=["b"]) == [str(tmp_path / "one" / "b")]


def test_what_is_there_is_replaced_only_if_asked_and_the_rest_waits_for_that(
    fleet, job, host, store, tmp_path
):
    (tmp_path / "b").write_bytes(b"mine")
    result = job.run("true", files_out=["*"])
    brings(fleet, host, store, result, ("a", b"A"), ("b", b"B"))

    with pytest.raises(RelayqError, match="b exists") as caught:
        result.fetch()
    assert caught.value.hint == "to replace it: --overwrite"
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "b").read_bytes() == b"mine"

    result.fetch(overwrite=True)
    assert (tmp_path / "b").read_bytes() == b"B"


def test_what_is_there_already_as_it_should_be_is_no_error(fleet, job, host, store, tmp_path):
    result = brings(fleet, host, store, job.run("true", files_out=["a"]), ("a", b"A"))
    result.fetch()
    before = (tmp_path / "a").stat()

    assert result.fetch() == [str(tmp_path / "a")]
    assert (tmp_path / "a").stat() == before


def test_a_file_goes_where_its_submitter_said(fleet, job, host, store, tmp_path, monkeypatch):
    result = job.run("true", files_out=["*.txt:new/", "x:y"])
    sha256 = hashlib.sha256(b"A").hexdigest()
    store.artifacts.keep(sha256, b"A", job=result.id, is_result=True)
    brings(
        fleet,
        host,
        store,
        result,
        Kept("a.txt", sha256, 1, dest=f"{tmp_path}/new/a.txt"),
        Kept("x", sha256, 1, dest=f"{tmp_path}/y"),
    )
    monkeypatch.chdir("/")

    assert result.fetch() == [f"{tmp_path}/new/a.txt", f"{tmp_path}/y"]


def test_a_destination_that_nobody_asked_for_is_not_followed(fleet, job, host, store, tmp_path):
    result = job.run("true", files_out=["*.txt:new/"])
    sha256 = hashlib.sha256(b"A").hexdigest()
    store.artifacts.keep(sha256, b"A", job=result.id, is_result=True)
    kept = Kept("a.txt", sha256, 1, dest=f"{tmp_path}/.bashrc")
    brings(fleet, host, store, result, kept)

    assert result.fetch() == [f"{tmp_path}/a.txt"]


@pytest.mark.parametrize("dest", ["new/../../x", "new/../x"])
def test_a_destination_that_leads_out_is_an_error(dest, fleet, job, host, store, tmp_path):
    result = job.run("true", files_out=["*.txt:new/"])
    sha256 = hashlib.sha256(b"A").hexdigest()
    store.artifacts.keep(sha256, b"A", job=result.id, is_result=True)
    brings(fleet, host, store, result, Kept("a.txt", sha256, 1, dest=f"{tmp_path}/{dest}"))

    with pytest.raises(RelayqError, match="leads out"):
        result.fetch()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\0b", ""])
def test_a_name_that_leads_out_is_an_error(name, fleet, job, host, store):
    result = job.run("true", files_out=["*"])
    sha256 = hashlib.sha256(b"A").hexdigest()
    store.artifacts.keep(sha256, b"A", job=result.id, is_result=True)
    brings(fleet, host, store, result, Kept(name, sha256, 1))

    with pytest.raises(RelayqError, match="can't be a file of a job"):
        result.fetch()


def test_two_files_never_become_one(fleet, job, host, store):
    result = job.run("true", files_out=["a/x", "b/x"])
    brings(fleet, host, store, result, ("a/x", b"A"), ("b/x", b"B"))

    with pytest.raises(RelayqError, match="two files would be"):
        result.fetch()


def test_a_file_that_could_not_be_sent_is_told_with_the_way_to_it(fleet, job, host, store):
    result = job.run("true", files_out=["big file"])
    error = "there is no file service"
    kept = Kept(
        "big file", "0" * 64, 9_000_000, place="host", path="/scratch/big file", error=error
    )
    brings(fleet, host, store, result, kept)

    with pytest.raises(OutputUnavailable) as caught:
        result.fetch()

    assert str(caught.value) == (
        "big file (9 MB) is still on pi4, at /scratch/big file: there is no file service"
    )
    assert caught.value.hint == "relayq run --on pi4 -- cat '/scratch/big file' > 'big file'"


def test_a_file_that_stayed_on_this_very_machine_is_copied(
    fleet, job, home, store, tmp_path, monkeypatch
):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "big").write_bytes(LARGE)
    sha256 = hashlib.sha256(LARGE).hexdigest()
    own = fleet.host("own", install=install_id(home))
    result = job.run("true", files_out=["big"])
    kept = Kept("big", sha256, len(LARGE), place="host", path=str(tmp_path / "scratch" / "big"))
    brings(fleet, own, store, result, kept)

    result.fetch()
    assert (tmp_path / "big").read_bytes() == LARGE

    (tmp_path / "scratch" / "big").write_bytes(LARGE[::-1])
    with pytest.raises(OutputUnavailable, match="it was changed since"):
        result.fetch("other")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["big", "scratch"]


def test_a_placed_file_is_where_it_belongs_already(fleet, job, host, store, tmp_path):
    sha256 = hashlib.sha256(b"A").hexdigest()
    result = job.run("true", files_out=["a:b"])
    kept = Kept("a", sha256, 1, dest=f"{tmp_path}/b", place="placed", path="/mnt/b")
    (tmp_path / "b").write_bytes(b"A")
    brings(fleet, host, store, result, kept)

    assert result.fetch() == [f"{tmp_path}/b"]
    assert result.fetch("c") == [f"{tmp_path}/c"]
    assert (tmp_path / "c").read_bytes() == b"A"
    (tmp_path / "b").unlink()
    with pytest.raises(OutputUnavailable, match="was put at .*/b by pi4, and isn't there"):
        result.fetch()


def test_without_room_nothing_is_begun(fleet, job, host, store, tmp_path):
    result = job.run("true", files_out=["big"])
    kept = Kept("big", "0" * 64, 10**17, place="service")
    brings(fleet, host, store, result, kept)

    with pytest.raises(NoRoom, match="big needs 1e[+]08 GB, and there is room for") as caught:
        result.fetch()

    assert "df -h" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_files_come_at_the_end(job, host):
    result = job.run("true", files_out=["a"])

    with pytest.raises(Conflict, match="is queued: its files come at its end") as caught:
        result.fetch()

    assert caught.value.hint == f"relayq wait {result.id}"


@pytest.mark.parametrize(("asked", "why"), [([], "none was asked for"), (["a"], "none was there")])
def test_a_job_without_result_files_says_why(asked, why, fleet, job, host, store):
    result = brings(fleet, host, store, job.run("true", files_out=asked))

    with pytest.raises(OutputUnavailable, match=why):
        result.fetch()


def test_a_name_that_no_result_file_has_is_an_error(fleet, job, host, store):
    result = brings(fleet, host, store, job.run("true", files_out=["a"]), ("a", b"A"))

    with pytest.raises(OutputUnavailable, match="has no file b; it has a"):
        result.fetch(names=["b"])


def test_what_a_failed_command_left_is_fetched_as_well(fleet, job, host, store, tmp_path):
    result = job.run("false", files_out=["a", "b"])
    brings(fleet, host, store, result, ("a", b"A"), state=JobState.FAILED)

    assert result.fetch() == [str(tmp_path / "a")]


def test_what_comes_to_be_here_during_the_fetch_is_not_replaced(
    fleet, job, host, store, tmp_path, monkeypatch
):
    result = brings(fleet, host, store, job.run("true", files_out=["a"]), ("a", b"A"))
    artifacts = job.relay.session().artifacts
    fetch = artifacts.fetch

    def slowly(*words, **options):
        fetch(*words, **options)
        (tmp_path / "a").write_bytes(b"mine")

    monkeypatch.setattr(artifacts, "fetch", slowly)

    with pytest.raises(RelayqError, match="a exists by now"):
        result.fetch()

    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("a", b"mine")]
