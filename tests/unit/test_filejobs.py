"""The files that a submitter asks for: found, and refused before anything is queued."""

import os
from pathlib import Path

import pytest

from relayq.config import install_id, load
from relayq.errors import RelayqError
from relayq.filejobs import check_free, files_fields
from relayq.model.files import FileIn, FileOut


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The submitter's directory, with a film in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.mov").write_bytes(b"x" * 10)
    (tmp_path / "talk.mov").chmod(0o640)
    (tmp_path / "films").mkdir()
    return tmp_path


@pytest.fixture
def fields(home):
    """What the spec gets, for files that are asked for."""
    config = load({"RELAYQ_HOME": str(home)})

    def make(files_in=(), files_out=(), *, overwrite=False):
        return files_fields(config, files_in, files_out, overwrite=overwrite)

    return make


def inputs(fields, *asked):
    return [FileIn.from_dict(one) for one in fields(asked)["files_in"]]


def outputs(fields, *asked, **options):
    return [FileOut.from_dict(one) for one in fields((), asked, **options)["files_out"]]


def test_a_job_without_files_has_no_fields(fields):
    assert fields() == {}
    assert fields(None, None) == {}


@pytest.mark.parametrize(
    ("asked", "dest"),
    [
        ("talk.mov", "talk.mov"),
        ("./talk.mov:in.mov", "in.mov"),
        ("talk.mov:film/", "film/talk.mov"),
        (Path("talk.mov"), "talk.mov"),
        (("talk.mov", "a/b.mov"), "a/b.mov"),
        ((Path("talk.mov"), "b.mov"), "b.mov"),
        (FileIn("c.mov", "talk.mov"), "c.mov"),
    ],
)
def test_an_input_is_named_in_any_of_these_ways(asked, dest, fields, here, home):
    [read] = inputs(fields, asked)

    found = (here / "talk.mov").stat()
    assert read == FileIn(
        dest=dest,
        source=str(here / "talk.mov"),
        size=10,
        mode=0o640,
        mtime=found.st_mtime,
        at=install_id(home),
    )


def test_an_input_by_a_url_is_left_to_its_host(fields):
    [read] = inputs(fields, "https://example.org/a/talk.mov?x=1:in.mov")

    assert read == FileIn("in.mov", "https://example.org/a/talk.mov?x=1", is_url=True)


def test_a_tilde_is_the_submitters_home(fields, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))

    [read], [out] = inputs(fields, "~/talk.mov"), outputs(fields, "*.mp4:~/films")

    assert read.source == str(here / "talk.mov")
    assert out.dest == f"{here}/films/"


BAD_INPUTS = [
    (["none.mov"], "none.mov can't be taken along: no such file or directory"),
    (["films"], "films is a directory, and files travel one by one"),
    (["films/"], "is a directory, and files travel one by one"),
    (["talk.mov/x"], "can't be taken along: not a directory"),
    (["/dev/null"], "/dev/null can't be taken along: it isn't a regular file"),
    (["pipe"], "it isn't a regular file"),
    (["loop"], "can't be taken along: too many levels of symbolic links"),
    (["talk.mov:../x"], "it leads out of the job's directory"),
    (["talk.mov:/x"], "it must be relative to the job's directory"),
    (["talk.mov:a/../../x"], "it leads out of the job's directory"),
    ([("talk.mov", "../x")], "it leads out of the job's directory"),
    ([""], "names no file"),
    ([":x"], "names no file"),
    ([("talk.mov", "a", "b")], "a file with two names is a pair of paths"),
    ([("talk.mov", 3)], "a file with two names is a pair of paths"),
    ([3], "an input is a path, or a pair of paths, not 3"),
    (["talk.mov\0"], "no file can be called"),
    (["talk.mov", "films/../talk.mov"], "two inputs would be talk.mov"),
    (["talk.mov:a", "talk.mov:a/b"], "a can't be both a file and the directory of a/b"),
    ("talk.mov", "files_in is a list of files, not 'talk.mov'"),
]


@pytest.mark.parametrize(("asked", "said"), BAD_INPUTS, ids=[str(a) for a, _ in BAD_INPUTS])
def test_an_input_that_can_not_travel_is_refused(asked, said, fields, here):
    os.mkfifo(here / "pipe")
    (here / "loop").symlink_to("loop")

    with pytest.raises(RelayqError) as caught:
        fields(asked)

    assert said in str(caught.value)
    assert "Errno" not in str(caught.value)


def test_an_input_that_may_not_be_read_is_refused(fields, here, monkeypatch):
    # root may read everything.
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("talk.mov"))

    with pytest.raises(RelayqError, match=r"talk\.mov can't be taken along: permission denied"):
        fields(["talk.mov"])


@pytest.mark.parametrize(
    ("asked", "pattern", "dest"),
    [
        ("out.mp4", "out.mp4", ""),
        ("out.mp4:b.mp4", "out.mp4", "{here}/b.mp4"),
        ("out.mp4:films", "out.mp4", "{here}/films/"),
        ("out/*.mp4:new/", "out/*.mp4", "{here}/new/"),
        (("out.mp4", "/x/../b.mp4"), "out.mp4", "/b.mp4"),
        (("out.mp4", Path("b.mp4")), "out.mp4", "{here}/b.mp4"),
        (Path("out.mp4"), "out.mp4", ""),
        (FileOut("out.mp4", "b.mp4", is_optional=True), "out.mp4", "{here}/b.mp4"),
    ],
)
def test_an_output_is_named_in_any_of_these_ways(asked, pattern, dest, fields, here, home):
    [read] = outputs(fields, asked)

    assert (read.pattern, read.dest) == (pattern, dest.format(here=here))
    assert read.at == (install_id(home) if dest else "")
    assert read.is_optional == isinstance(asked, FileOut)


BAD_OUTPUTS = [
    (["out.mp4:talk.mov"], "talk.mov exists"),
    (["talk.mov:./"], "talk.mov exists"),
    (["*.mp4:all.mp4"], "*.mp4 may be several files, and all.mp4 is no directory"),
    (["out.mp4:talk.mov/x.mp4"], "talk.mov is no directory"),
    (["../out.mp4"], "it leads out of the job's directory"),
    (["/out.mp4"], "it must be relative to the job's directory"),
    (["a/../../out.mp4"], "it leads out of the job's directory"),
    (["out/"], "it is a directory"),
    ([""], "names no file"),
    (["a:x", "b:x"], "two outputs go to"),
    ([3], "an output is a pattern, or a pattern and a path, not 3"),
    ([("a", "b\0")], "no file can be called"),
    ("out.mp4", "files_out is a list of files, not 'out.mp4'"),
]


@pytest.mark.parametrize(("asked", "said"), BAD_OUTPUTS, ids=[str(a) for a, _ in BAD_OUTPUTS])
def test_an_output_that_can_not_be_put_anywhere_is_refused(asked, said, fields, here):
    with pytest.raises(RelayqError) as caught:
        fields((), asked)

    assert said in str(caught.value)


def test_an_output_may_replace_what_is_there_if_that_was_said(fields, here):
    [read] = outputs(fields, "out.mp4:talk.mov", overwrite=True)

    assert read.overwrite


def test_a_directory_is_never_replaced_by_a_file(here):
    with pytest.raises(RelayqError, match="films is a directory, so no file can be put there"):
        check_free(str(here / "films"), overwrite=True)


def test_a_link_that_leads_nowhere_is_in_the_way_as_well(here):
    (here / "link").symlink_to("nowhere")

    with pytest.raises(RelayqError, match="link exists"):
        check_free(str(here / "link"), overwrite=False)
