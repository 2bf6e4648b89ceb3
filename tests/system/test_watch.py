"""`relayq watch`, with a real worker and files that are still being written."""

from __future__ import annotations

import json
import signal

import pytest

from tests.system.commands import begin, relayq
from tests.waiting import until

pytestmark = pytest.mark.system


def test_each_file_is_done_once_when_it_is_whole(shared_fleet, tmp_path):
    there = tmp_path / "in"
    there.mkdir()
    (there / "first.txt").write_text("first")
    (there / "other.log").write_text("no")
    arguments = [str(there), "--glob", "*.txt", "--settle", "0.5s", "--every", "0.1s"]
    # Its result comes here, to where it was started.
    arguments += ["--in", "{}", "--out", "{/.}.up", "--", "sh", "-c", "tr a-z A-Z <$1 >$2"]
    arguments += ["sh", "{/}", "{/.}.up"]

    watch = begin("watch", *arguments, cwd=tmp_path)
    growing = there / "growing.txt"
    with growing.open("w") as file:

        def grown() -> bool:
            file.write("x")
            file.flush()
            return (tmp_path / "first.up").exists()

        until(grown, within=20, what="the first result")
        length = growing.stat().st_size
    until((tmp_path / "growing.up").exists, within=20, what="the second result")
    until(lambda: (tmp_path / "growing.up").stat().st_size, within=5, what="its content")
    watch.send_signal(signal.SIGINT)
    ids, said = watch.communicate(timeout=20)
    again = relayq("watch", "--once", *arguments, cwd=tmp_path)

    assert watch.returncode == 130, said
    assert len(ids.split()) == 2
    assert (tmp_path / "first.up").read_text() == "FIRST"
    assert (tmp_path / "growing.up").read_text() == "X" * length
    assert f"{there}/first.txt  done in " in said
    assert (again.returncode, again.stdout) == (0, ""), again.stderr

    (there / "first.txt").write_text("changed")
    once = relayq("watch", "--once", "--json", "--overwrite", *arguments, cwd=tmp_path)

    assert once.returncode == 0, once.stderr
    told = [json.loads(line) for line in once.stdout.splitlines()]
    assert [one["event"] for one in told] == ["submitted", "ended"]
    assert (tmp_path / "first.up").read_text() == "CHANGED"


def test_what_a_job_makes_is_not_watched_in_turn(shared_fleet, tmp_path):
    (tmp_path / "a").write_text("a")

    done = relayq(
        *("watch", "--once", "--settle", "0.1s", "--every", "0.1s", ".", "--in", "{}"),
        *("--out", "{}.gz", "--", "gzip", "{}"),
        cwd=tmp_path,
    )

    assert done.returncode == 125
    assert "a.gz would be watched as well" in done.stderr
    assert not (tmp_path / "a.gz").exists()
