"""Files of jobs as they are written, and where they may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.errors import RelayqError
from relayq.model.files import FileIn, FileOut, Kept, inside, mapped, parse_in, parse_out

SHA = "0" * 64


@pytest.mark.parametrize(
    ("text", "source", "dest"),
    [
        ("talk.mov", "talk.mov", "talk.mov"),
        ("films/talk.mov", "films/talk.mov", "talk.mov"),
        ("talk.mov:in.mov", "talk.mov", "in.mov"),
        ("talk.mov:in/", "talk.mov", "in/talk.mov"),
        ("talk.mov:./a//b", "talk.mov", "a/b"),
        ("take:2.mov:", "take:2.mov", "take:2.mov"),
        ("a:b:c", "a:b", "c"),
        ("a b.mov", "a b.mov", "a b.mov"),
        ("~/x", "~/x", "x"),
    ],
)
def test_the_last_colon_parts_a_file_from_its_place(text, source, dest):
    read = parse_in(text)

    assert (read.source, read.dest, read.is_url) == (source, dest, False)


@pytest.mark.parametrize(
    ("text", "source", "dest"),
    [
        ("https://host/a.mov", "https://host/a.mov", "a.mov"),
        ("https://host:8080/a.mov", "https://host:8080/a.mov", "a.mov"),
        ("https://host:8080/a.mov:in.mov", "https://host:8080/a.mov", "in.mov"),
        ("https://host/my%20talk.mov?x=1", "https://host/my%20talk.mov?x=1", "my talk.mov"),
        ("s3://bucket/key/a.mov:x/", "s3://bucket/key/a.mov", "x/a.mov"),
        ("https://host/?id=1:a.mov", "https://host/?id=1", "a.mov"),
        ("https://user:word@host/a.mov", "https://user:word@host/a.mov", "a.mov"),
    ],
)
def test_the_colons_before_the_path_of_a_url_part_nothing(text, source, dest):
    read = parse_in(text)

    assert (read.source, read.dest, read.is_url) == (source, dest, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no file"),
        (":in.mov", "names no file"),
        ("films/", "is a directory"),
        ("..", "is a directory"),
        ("https://host/", "has no file name"),
        ("a\0b", "no file can be called"),
    ],
)
def test_what_names_no_file_is_refused(text, said):
    with pytest.raises(RelayqError, match=said) as raised:
        parse_in(text)

    assert raised.value.hint or "\0" in text


@pytest.mark.parametrize(
    "path", ["../x", "a/../b", "a/..", "/x", "//x", "", " ", ".", "./", "./ ", "a\0"]
)
def test_nothing_leaves_the_directory_of_a_job(path):
    with pytest.raises(RelayqError, match="can't be a file of a job"):
        inside(path)


@given(st.text("abc./ ~*", min_size=1, max_size=12))
def test_what_is_inside_stays_inside_and_is_normal(path):
    try:
        found = inside(path)
    except RelayqError:
        return
    assert not found.startswith("/")
    assert ".." not in found.split("/")
    assert inside(found) == found


@pytest.mark.parametrize(
    ("text", "pattern", "dest"),
    [
        ("out/*.mp4", "out/*.mp4", ""),
        ("*.mp4:films/", "*.mp4", "films/"),
        ("a.mp4:/srv/b.mp4", "a.mp4", "/srv/b.mp4"),
        ("take:2.mp4:", "take:2.mp4", ""),
    ],
)
def test_an_output_is_a_pattern_and_perhaps_its_place(text, pattern, dest):
    read = parse_out(text)

    assert (read.pattern, read.dest) == (pattern, dest)


@pytest.mark.parametrize(
    "one",
    [
        FileIn("a", "/x/a", sha256=SHA, size=3, mode=0o755, mtime=1.5, at="id"),
        FileIn("a", "https://x/a", is_url=True),
        FileOut("*.x", "/y/", at="id", is_optional=True, overwrite=True),
        Kept("a", SHA, 3, place="host", path="/z/a", error="no room"),
    ],
)
def test_a_file_survives_json(one):
    assert type(one).from_dict(one.as_dict()) == one


@pytest.mark.parametrize(
    ("sort", "raw"),
    [
        (FileIn, {"dest": "a"}),
        (FileIn, {"dest": "a", "source": "b", "more": 1}),
        (FileIn, {"dest": "a", "source": "b", "size": "3"}),
        (FileIn, {"dest": "a", "source": "b", "size": -3}),
        (FileIn, {"dest": "a", "source": "b", "sha256": "../../etc/passwd"}),
        (FileIn, {"dest": "a", "source": "b", "is_url": 1}),
        (Kept, {"name": "a", "sha256": SHA, "size": 3, "place": "elsewhere"}),
        (Kept, {"name": "a", "sha256": "x", "size": 3}),
    ],
)
def test_what_is_no_file_is_refused(sort, raw):
    with pytest.raises(ValueError, match=r"file|sha256|required"):
        sort.from_dict(raw)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/Volumes/media/a.mov", "/mnt/nas/a.mov"),
        ("/Volumes/media/new/a.mov", "/mnt/ssd/a.mov"),
        ("/Volumes/media", "/mnt/nas"),
        ("/Volumes/media/x/../a.mov", "/mnt/nas/a.mov"),
        ("/Volumes/mediaeval/a.mov", None),
        ("/Volumes/media/../a.mov", None),
        ("/a.mov", None),
    ],
)
def test_the_longest_map_that_fits_names_a_path(path, name):
    maps = {"/Volumes/media/": "/mnt/nas", "/Volumes/media/new": "/mnt/ssd"}

    assert mapped(path, maps) == name
