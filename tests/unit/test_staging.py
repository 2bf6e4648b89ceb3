"""The steps of a job with files: what is taken from where, what is found, sent and placed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace

import pytest

from relayq import transfer
from relayq.errors import NoRoom
from relayq.host.collecting import collect, find
from relayq.host.returned import judged, read
from relayq.host.staging import Batch, Fault, Order, fault_of
from relayq.host.taking import take
from relayq.kinds import Verdict
from relayq.model.files import FileIn, FileOut
from relayq.model.jobs import JobState, Reason
from relayq.transfer import Service


@pytest.fixture
def order(tmp_path):
    """The order of an attempt in a scratch directory."""
    directory, cwd = tmp_path / "attempt", tmp_path / "attempt" / "scratch"
    (directory / "files").mkdir(parents=True)
    cwd.mkdir()
    facts = {
        "job": "j1",
        "attempt": 1,
        "cwd": str(cwd),
        "is_scratch": True,
        "is_resumed": False,
        "install": "here",
        "paths": {},
        "cache": str(tmp_path / "cache"),
        "cache_limit": 10_000_000,
        "patience": 1.0,
        "files_in": [],
        "files_out": [],
        "service": {"url": "http://nowhere", "token": "t"},
    }
    (directory / "stage.json").write_text(json.dumps(facts))
    return Order.read(str(directory))


@pytest.fixture
def service(monkeypatch):
    """A file service's contents, and how often they were fetched."""
    contents: dict[str, bytes] = {}
    fetched: list[str] = []

    def get(service, digest, path, **how):
        assert isinstance(service, Service)
        fetched.append(digest.sha256)
        how["progress"](digest.size, digest.size)
        with open(path, "wb") as file:
            file.write(contents[digest.sha256])

    def put(service, path, digest, **how):
        with open(path, "rb") as file:
            contents[digest.sha256] = file.read()

    monkeypatch.setattr(transfer, "get", get)
    monkeypatch.setattr(transfer, "put", put)
    return contents, fetched


def inputs(order, *files):
    return replace(order, files_in=files)


def outputs(order, *files):
    return replace(order, files_out=files)


def large(size=300_000):
    return os.urandom(size)


def file_of(content, dest="in.bin", source="/gone/in.bin", **facts):
    return FileIn(
        dest, source, sha256=hashlib.sha256(content).hexdigest(), size=len(content), **facts
    )


def report(order):
    with open(os.path.join(order.directory, "kept.json")) as file:
        return json.load(file)


# Taking


def test_a_small_input_lies_ready(order, tmp_path):
    one = file_of(b"small", dest="a/b.txt", mode=0o750, mtime=1000.0)
    (tmp_path / "attempt" / "files" / one.sha256).write_bytes(b"small")

    take(inputs(order, one), {})

    taken = tmp_path / "attempt" / "scratch" / "a" / "b.txt"
    assert taken.read_bytes() == b"small"
    assert (taken.stat().st_mode & 0o777, taken.stat().st_mtime) == (0o750, 1000.0)


def test_a_large_input_is_fetched_once_and_a_job_gets_a_copy(order, service, tmp_path):
    contents, fetched = service
    one = file_of(large := os.urandom(300_000))
    contents[one.sha256] = large

    take(inputs(order, one, replace(one, dest="again.bin")), {})
    first = tmp_path / "attempt" / "scratch" / "in.bin"
    first.write_bytes(b"changed")
    take(inputs(order, replace(one, dest="third.bin")), {})

    assert fetched == [one.sha256]
    assert (first.parent / "again.bin").read_bytes() == large
    assert (first.parent / "third.bin").read_bytes() == large


def test_without_a_cache_every_job_fetches(order, service):
    contents, fetched = service
    one = file_of(content := large())
    contents[one.sha256] = content
    bare = replace(order, cache_limit=0)

    take(inputs(bare, one), {})
    take(inputs(bare, one), {})

    assert len(fetched) == 2
    assert not os.path.exists(order.cache)


def test_the_submitters_own_file_is_linked_while_it_is_as_it_was(order, service, tmp_path):
    source = tmp_path / "own.bin"
    source.write_bytes(content := large())
    seen = source.stat()
    one = file_of(content, source=str(source), at="here", mtime=seen.st_mtime)

    take(inputs(order, one), {})

    assert os.readlink(os.path.join(order.cwd, "in.bin")) == str(source)


def test_a_file_that_was_only_touched_is_the_same(order, tmp_path):
    source = tmp_path / "own.bin"
    source.write_bytes(content := large())
    one = file_of(content, source=str(source), at="here", mtime=1.0)

    take(inputs(order, one), {})

    assert os.path.islink(os.path.join(order.cwd, "in.bin"))


def test_of_a_changed_file_the_sent_content_counts(order, service, tmp_path):
    contents, _ = service
    source = tmp_path / "own.bin"
    one = file_of(content := large(), source=str(source), at="here", mtime=1.0)
    source.write_bytes(os.urandom(len(content)))
    contents[one.sha256] = content

    take(inputs(order, one), {})

    with open(os.path.join(order.cwd, "in.bin"), "rb") as file:
        assert file.read() == content


def test_a_changed_file_that_was_not_sent_is_a_fault(order, tmp_path):
    source = tmp_path / "own.bin"
    source.write_bytes(b"now")
    unsent = FileIn("in.bin", str(source), size=300_000, mtime=1.0, at="here")

    with pytest.raises(Fault, match="changed since the submit") as raised:
        take(inputs(order, unsent), {})

    assert raised.value.fault == "files"


def test_a_share_that_is_not_mounted_is_a_fault_for_now(order, tmp_path):
    shared = FileIn("in.bin", "/Volumes/a.bin", size=300_000, mtime=1.0, at="other")
    order = replace(order, paths={"/Volumes": str(tmp_path / "unmounted")})

    with pytest.raises(Fault) as raised:
        take(inputs(order, shared), {})

    assert raised.value.fault == "away"


def test_an_input_that_may_be_changed_is_not_the_submitters_own(order, tmp_path):
    source = tmp_path / "own.txt"
    source.write_text("own")
    one = file_of(
        b"own", dest="own.txt", source=str(source), at="here", mtime=source.stat().st_mtime
    )

    take(outputs(inputs(order, one), FileOut("*.txt")), {})

    assert not os.path.islink(os.path.join(order.cwd, "own.txt"))


def test_either_all_inputs_are_there_or_none(order, tmp_path):
    small = file_of(b"small", dest="small.txt")
    (tmp_path / "attempt" / "files" / small.sha256).write_bytes(b"small")
    os.mkdir(os.path.join(order.cwd, "taken"))
    blocked = replace(small, dest="taken")

    with pytest.raises(Fault, match="is a directory"):
        take(inputs(order, small, blocked), {})

    assert os.listdir(order.cwd) == ["taken"]


def test_without_a_service_an_input_is_a_fault_for_now(order, tmp_path):
    order_file = tmp_path / "attempt" / "stage.json"
    order_file.write_text(json.dumps({**json.loads(order_file.read_text()), "service": None}))

    with pytest.raises(Fault, match="relayq serve") as raised:
        take(inputs(replace(order, patience=0.1), file_of(large())), {})

    assert raised.value.fault == "away"


def test_what_an_agent_made_of_its_inputs_stays_for_its_next_attempt(order, tmp_path):
    one = file_of(b"before", dest="notes.txt")
    (tmp_path / "attempt" / "files" / one.sha256).write_bytes(b"before")
    notes = tmp_path / "attempt" / "scratch" / "notes.txt"
    notes.write_text("after")

    take(inputs(replace(order, is_resumed=True, attempt=2), one), {})

    assert notes.read_text() == "after"


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError(errno.ENOSPC, "no space", "/x"), "host"),
        (OSError(errno.EIO, "bad disk"), "host"),
        (NoRoom("the disk is full"), "host"),
        (PermissionError(errno.EACCES, "permission denied", "/x"), "files"),
        (Fault("away", "no service"), "away"),
    ],
)
def test_a_full_disk_is_the_hosts_fault_and_a_wrong_place_the_jobs(error, fault):
    assert fault_of(error).fault == fault


def test_a_url_is_fetched_by_fsspec(order, tmp_path):
    pytest.importorskip("fsspec")
    (tmp_path / "web.bin").write_bytes(content := large())
    one = FileIn("in.bin", f"file://{tmp_path}/web.bin", is_url=True)

    take(inputs(order, one), {})

    with open(os.path.join(order.cwd, "in.bin"), "rb") as file:
        assert file.read() == content


@pytest.mark.parametrize(
    ("url", "fault"),
    [("file:///nosuch/file", "files"), ("nosuch://x/y", "files"), ("http://127.0.0.1:9/x", "away")],
)
def test_a_url_that_has_nothing_is_a_fault(order, url, fault):
    pytest.importorskip("fsspec")
    if url.startswith("http"):
        pytest.importorskip("aiohttp")

    with pytest.raises(Fault, match="can't be fetched") as raised:
        take(inputs(order, FileIn("in.bin", url, is_url=True)), {})

    assert raised.value.fault == fault
    assert not os.listdir(order.cwd)


# Collecting


def test_patterns_find_files_and_leave_what_was_only_taken_along(order, tmp_path):
    scratch = tmp_path / "attempt" / "scratch"
    one = file_of(b"in", dest="in.txt")
    (tmp_path / "attempt" / "files" / one.sha256).write_bytes(b"in")
    all_texts = outputs(inputs(order, one), FileOut("*.txt"))
    take(all_texts, {})
    (scratch / "new.txt").write_text("new")
    (scratch / "directory.txt").mkdir()
    (scratch / ".hidden.txt").write_text("hidden")

    assert [found.name for found in find(all_texts).found] == ["new.txt"]
    assert [found.name for found in find(outputs(order, FileOut("in.txt"))).found] == ["in.txt"]
    (scratch / "in.txt").write_text("in place")
    assert [found.name for found in find(all_texts).found] == ["in.txt", "new.txt"]


def test_a_name_with_the_signs_of_a_pattern_is_found_by_its_name(order, tmp_path):
    (tmp_path / "attempt" / "scratch" / "take[1].mov").write_text("x")

    search = find(outputs(order, FileOut("take[1].mov"), FileOut("*.wav", is_optional=True)))

    assert [found.name for found in search.found] == ["take[1].mov"]
    assert not search.missing


@pytest.mark.parametrize(
    ("pattern", "name", "dest"),
    [
        ("a.txt", "a.txt", "/y/a.txt"),
        ("out/*.txt", "out/a.txt", "/y/a.txt"),
        ("out/**/*.txt", "out/b/a.txt", "/y/b/a.txt"),
        ("*/a.txt", "out/a.txt", "/y/out/a.txt"),
    ],
)
def test_a_directory_gets_files_by_their_names_from_the_first_star_on(
    order, tmp_path, pattern, name, dest
):
    path = tmp_path / "attempt" / "scratch" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")

    assert [found.dest for found in find(outputs(order, FileOut(pattern, "/y/"))).found] == [dest]


def test_many_files_do_not_go_to_one(order, tmp_path):
    for name in "ab":
        (tmp_path / "attempt" / "scratch" / f"{name}.txt").write_text(name)

    search = find(outputs(order, FileOut("*.txt", "/y/one.txt")))

    assert search.errors == ["*.txt matches 2 files, and /y/one.txt is one: end it with /"]
    assert [found.dest for found in search.found] == ["", ""]


def test_a_result_is_placed_sent_or_laid_ready(order, service, tmp_path):
    scratch, target = tmp_path / "attempt" / "scratch", tmp_path / "target"
    target.mkdir()
    (scratch / "placed.bin").write_bytes(placed := large())
    (scratch / "sent.bin").write_bytes(sent := large())
    (scratch / "small.txt").write_text("small")

    collect(
        outputs(
            order,
            FileOut("placed.bin", f"{target}/new.bin", at="here"),
            FileOut("sent.bin", "/elsewhere/sent.bin", at="other"),
            FileOut("small.txt"),
        ),
        {},
    )

    files = report(order)["files"]
    assert [one.get("place", "inline") for one in files] == ["placed", "service", "inline"]
    assert (target / "new.bin").read_bytes() == placed
    assert [one.name for one in target.iterdir()] == ["new.bin"]
    assert list(service[0].values()) == [sent]
    small = hashlib.sha256(b"small").hexdigest()
    assert (tmp_path / "attempt" / "files" / small).read_bytes() == b"small"


@pytest.mark.parametrize(
    ("facts", "is_replaced"),
    [({}, False), ({"overwrite": True}, True), ({"attempt": 2}, True)],
)
def test_what_is_there_by_then_is_replaced_only_if_it_may_be(order, tmp_path, facts, is_replaced):
    (tmp_path / "attempt" / "scratch" / "out.txt").write_text("new")
    (tmp_path / "there.txt").write_text("other")
    order = replace(order, attempt=facts.pop("attempt", 1))

    collect(outputs(order, FileOut("out.txt", f"{tmp_path}/there.txt", at="here", **facts)), {})

    (kept,) = report(order)["files"]
    assert (tmp_path / "there.txt").read_text() == ("new" if is_replaced else "other")
    assert ("exists by now" in kept.get("error", "")) is not is_replaced
    assert kept.get("place", "inline") == ("placed" if is_replaced else "inline")


def test_a_new_directory_is_made_for_results_but_not_its_parents(order, tmp_path):
    (tmp_path / "attempt" / "scratch" / "a.txt").write_text("a")

    collect(outputs(order, FileOut("a.txt", f"{tmp_path}/new/", at="here")), {})
    collect(outputs(order, FileOut("a.txt", f"{tmp_path}/x/y/z.txt", at="here")), {})

    assert (tmp_path / "new" / "a.txt").read_text() == "a"
    assert not (tmp_path / "x").exists()


def test_what_a_step_leaves_unnamed_is_removed(order, tmp_path):
    batch = Batch(order)
    draft = batch.beside(str(tmp_path / "final"))
    open(draft, "w").close()
    open(f"{draft}.12345678.part", "w").close()

    batch.discard()

    assert not [one for one in os.listdir(tmp_path) if one.startswith(".relayq")]


# What the worker makes of it


@pytest.mark.parametrize(
    ("told", "reason", "said"),
    [
        ({"files": [], "missing": [], "errors": []}, Reason.EXIT, None),
        ({"files": [], "missing": ["*.mov"], "errors": []}, Reason.FILES, "no file matches *.mov"),
        ({"files": [], "missing": [], "errors": ["x leads out"]}, Reason.FILES, "x leads out"),
        (None, Reason.FILES, "were not taken"),
        ({"files": [{"name": "../x"}], "missing": [], "errors": []}, Reason.FILES, "not taken"),
        ({"files": 3, "missing": None, "errors": {}}, Reason.FILES, "not taken"),
        (
            {
                "files": [
                    {"name": "a", "sha256": "0" * 64, "size": 1, "place": "host", "path": "/h/a"}
                ],
                "missing": [],
                "errors": [],
            },
            Reason.FILES,
            "lies on its host at /h/a",
        ),
    ],
)
def test_a_success_needs_its_files(tmp_path, told, reason, said):
    (tmp_path / "stage.json").write_text("{}")
    if told is not None:
        (tmp_path / "kept.json").write_text(json.dumps(told))

    verdict = judged(tmp_path, Verdict(JobState.SUCCEEDED, Reason.EXIT))

    assert verdict.reason == reason
    assert verdict.error is None if said is None else said in verdict.error


def test_a_failure_is_one_with_or_without_files(tmp_path):
    (tmp_path / "stage.json").write_text("{}")
    failed = Verdict(JobState.FAILED, Reason.EXIT)

    assert judged(tmp_path, failed) == failed
    assert read(tmp_path) is None
