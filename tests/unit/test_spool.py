"""The attempt directory's files and the process tree, as far as they are pure."""

from __future__ import annotations

import json

import pytest

from relayq.host import spool, tree


def one(pid: int, parent: int) -> tree.Process:
    return tree.Process(pid, parent, pid, "S", "1")


def test_a_tree_is_found_by_its_processes_parents():
    table = {p.pid: p for p in [one(1, 0), one(2, 1), one(3, 2), one(4, 3), one(5, 1)]}

    assert {p.pid for p in tree.descendants(table, [2])} == {3, 4}
    assert {p.pid for p in tree.descendants(table, [1])} == {2, 3, 4, 5}
    assert tree.descendants(table, [4, 5]) == []


@pytest.mark.parametrize("error", [None, "short", "x" * 5000, "\N{SNOWMAN}" * 900, "\udcff" * 900])
def test_an_exit_record_fits_its_room_and_marks_what_it_shortens(error):
    raw = spool.encode(spool.unstarted("spawn", error))

    assert len(raw) <= spool.RECORD_SIZE
    told = json.loads(raw)["error"]
    assert told == error or (told.endswith("...") and error.startswith(told[:-3]))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"{}" + b"\0" * 9])
def test_a_torn_file_reads_as_none(tmp_path, content):
    (tmp_path / "file").write_bytes(content)

    assert spool.load(str(tmp_path / "file")) is None
    assert spool.load(str(tmp_path / "missing")) is None


def test_a_replaced_file_reads_as_what_was_written(tmp_path):
    path = str(tmp_path / "file")

    spool.replace(path, {"word": "h\udcff"})
    spool.replace(path, {"word": "\0"})

    assert spool.load(path) == {"word": "\0"}
