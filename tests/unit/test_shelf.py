"""The file service's directory: what is kept, what has to go, and what may never."""

from __future__ import annotations

import hashlib
import os

import pytest

from relayq import clock
from relayq.errors import NoRoom
from relayq.serve.keeping import is_needed
from relayq.serve.shelf import Content, Mismatch, Shelf
from relayq.store.artifacts import User

DAY = 86_400.0


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "artifacts", quota=1000)


def put(shelf, content, *, age=0.0):
    """Upload a content that was used last so long ago."""
    sha256 = hashlib.sha256(content).hexdigest()
    upload = shelf.begin(sha256, 0, len(content))
    upload.add(memoryview(content))
    upload.finish()
    upload.close()
    then = clock.now() - age
    os.utime(shelf.path(sha256), (then, then))
    return sha256


def here(shelf):
    return {content.sha256 for content in shelf.contents()}


def test_a_content_is_complete_only_when_it_is_what_was_promised(shelf):
    sha256 = hashlib.sha256(b"promised").hexdigest()
    upload = shelf.begin(sha256, 0, 8)
    upload.add(memoryview(b"promise!"))
    assert shelf.touch(sha256) is None

    with pytest.raises(Mismatch):
        upload.finish()
    upload.close()

    assert shelf.touch(sha256) is None
    assert shelf.offset(sha256) == 0
    assert shelf.used == 0


def test_an_upload_is_one_persons_at_a_time_and_another_may_go_on_with_it(shelf):
    content = b"in two parts"
    sha256 = hashlib.sha256(content).hexdigest()
    upload = shelf.begin(sha256, 0, len(content))
    assert shelf.begin(sha256, 0, len(content)) is None
    upload.add(memoryview(content[:6]))
    upload.close()

    upload = shelf.begin(sha256, shelf.offset(sha256), len(content))
    upload.add(memoryview(content[6:]))
    upload.finish()
    upload.close()

    assert shelf.touch(sha256) == len(content)
    assert shelf.used == len(content)
    assert Shelf(shelf.folder, quota=1000).used == len(content)


def test_what_others_are_still_sending_counts_for_the_quota(shelf):
    put(shelf, b"x" * 400)
    upload = shelf.begin("a" * 64, 0, 500)

    with pytest.raises(NoRoom, match="900 B of files, and 101 B more are over its quota of 1 kB"):
        shelf.begin("b" * 64, 0, 101)

    upload.add(memoryview(b"y" * 300))
    assert shelf.missing_room(101) == 1
    upload.discard()
    upload.close()
    shelf.begin("b" * 64, 0, 600).close()


def test_what_is_old_goes_unless_it_is_needed(shelf):
    old, needed, young = (
        put(shelf, text, age=age) for text, age in ((b"1", 9 * DAY), (b"2", 9 * DAY), (b"3", 0))
    )

    gone = shelf.sweep(keep=7 * DAY, is_needed=lambda content: content.sha256 == needed)

    assert [content.sha256 for content in gone] == [old]
    assert here(shelf) == {needed, young}
    assert shelf.used == 2


def test_for_room_the_longest_unused_go_and_no_more_than_must(shelf):
    names = [put(shelf, bytes([n]) * 300, age=n * 3600) for n in range(3)]

    shelf.sweep(keep=7 * DAY, is_needed=lambda content: False, room=350)

    assert here(shelf) == {names[0], names[1]}
    assert not shelf.missing_room(350)


def test_what_was_used_since_the_look_stays(shelf):
    name = put(shelf, b"1", age=9 * DAY)

    shelf.sweep(keep=7 * DAY, is_needed=lambda content: shelf.touch(name) is None)

    assert here(shelf) == {name}


def test_uploads_that_nobody_went_on_with_go(shelf):
    content = b"never whole"
    for name, age in (("a" * 64, 3 * DAY), ("b" * 64, 0.0)):
        upload = shelf.begin(name, 0, 100)
        upload.add(memoryview(content))
        upload.close()
        then = clock.now() - age
        os.utime(shelf.folder / "partial" / name, (then, then))

    assert shelf.remove_partials(older_than=2 * DAY) == 1
    assert shelf.offset("a" * 64) == 0
    assert shelf.offset("b" * 64) == len(content)
    assert shelf.used == len(content)


@pytest.mark.parametrize("name", ["", "..", "a" * 63, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_what_is_no_sha256_is_no_name(shelf, name):
    with pytest.raises(ValueError, match="no sha256"):
        shelf.begin(name, 0, 1)
    with pytest.raises(ValueError, match="no sha256"):
        shelf.touch(name)


def test_files_that_are_not_ours_are_left_alone(shelf):
    (shelf.folder / "notes.txt").write_text("mine")
    (shelf.folder / "ab").mkdir()
    (shelf.folder / "ab" / "README").write_text("mine")

    shelf.sweep(keep=0.0, is_needed=lambda content: False)

    assert (shelf.folder / "notes.txt").exists()
    assert (shelf.folder / "ab" / "README").exists()


NOW = 1_000_000_000.0
WAITS, ENDED = User("1", False, False), User("2", True, False)
MADE_BY_ENDED = User("3", True, True)


@pytest.mark.parametrize(
    ("users", "age", "needed"),
    [
        ([], 3600.0, True),
        ([], 2 * DAY, False),
        ([ENDED], 0.0, False),
        ([WAITS], 400 * DAY, True),
        ([ENDED, WAITS], 400 * DAY, True),
        ([MADE_BY_ENDED], 400 * DAY, True),
        ([ENDED, ENDED], 400 * DAY, False),
    ],
)
def test_a_content_is_needed_by_jobs_that_have_not_ended_and_records_of_what_made_it(
    tmp_path, users, age, needed
):
    content = Content("a" * 64, tmp_path / "a", 1, NOW - age)

    assert is_needed(content, users, NOW) is needed
