"""Files of jobs on one machine: `--in`, `--out` and `relayq get` as they are typed."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from relayq.client import Relay
from tests.system.commands import relayq, shown, submit

pytestmark = pytest.mark.system

LARGE = 300_000


@pytest.fixture
def here(shared_fleet, tmp_path, monkeypatch):
    """The directory in which everything is typed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names").write_text("c\nb\na\n")
    return tmp_path


def ran(*words: str) -> subprocess.CompletedProcess[str]:
    done = relayq(*words)
    assert done.returncode == 0, done.stderr
    return done


def test_run_takes_a_file_along_and_brings_one_back(here):
    done = ran("run", "--in", "names", "--out", "sorted", "sort names > sorted; pwd")

    assert (here / "sorted").read_text() == "a\nb\nc\n"
    assert done.stdout.strip() != str(here)
    assert not os.path.exists(done.stdout.strip())
    assert "brought sorted (6 B)" in done.stderr


def test_large_files_need_no_service_on_one_machine(here):
    (here / "large").write_bytes(os.urandom(LARGE))

    ran("run", "--in", "large:in/a", "--out", "out/b:copy", "mkdir out && cp in/a out/b")

    assert (here / "copy").read_bytes() == (here / "large").read_bytes()


def test_what_a_job_changes_is_not_the_submitters_own_file(here):
    ran("run", "--in", "names", "--out", "names:changed", "echo d >> names")

    assert (here / "names").read_text() == "c\nb\na\n"
    assert (here / "changed").read_text() == "c\nb\na\nd\n"


def test_a_scripts_own_lines_name_its_files(here):
    script = here / "sort.sh"
    script.write_text("#!/bin/sh\n#RELAYQ --in names\n#RELAYQ --out sorted\nsort names > sorted\n")

    ran("run", str(script))

    assert (here / "sorted").read_text() == "a\nb\nc\n"


def test_what_a_submitted_job_made_is_fetched_later(here):
    id = submit("--in", "names", "--out", "*.txt", "sort names > a.txt; wc -l < names > b.txt")
    relayq("wait", id)
    assert sorted(one.name for one in here.iterdir()) == ["names"]

    listed = ran("get", "--list", id).stdout.splitlines()
    got = ran("get", id, "results").stdout.splitlines()
    again = json.loads(ran("cp", "--json", "--only", "b*", id).stdout)

    assert [line.split()[:3] for line in listed] == [
        ["NAME", "SIZE", "WHERE"],
        ["a.txt", "6", "B"],
        ["b.txt", "2", "B"],
    ]
    assert got == [f"{here}/results/a.txt", f"{here}/results/b.txt"]
    assert (here / "results" / "a.txt").read_text() == "a\nb\nc\n"
    assert again["fetched"] == [{"id": id, "path": f"{here}/b.txt"}]


def test_jobs_of_a_group_never_overwrite_each_other(here):
    for name in "ab":
        relayq("wait", submit("--group", "same", "--out", "x", f"echo {name} > x"))

    done = relayq("get", "@same", "results")

    assert done.returncode == 125
    assert "results/x would be of both " in done.stderr
    assert not (here / "results").exists()


def test_show_says_which_files_there_are(here):
    id = submit("--in", "names:in/list", "--out", "x:there/", "cp in/list x")
    relayq("wait", id)

    lines = ran("show", id).stdout.splitlines()
    value = shown(id)

    assert f"  Files in  {here}/names (6 B) as in/list" in lines
    assert f"  Files out x to {here}/there/" in lines
    assert any(line.startswith("  Brought   x (6 B) ") for line in lines)
    assert lines[-1] == f"  Next      relayq get {id} | relayq logs {id} | relayq retry {id}"
    [file] = value["spec"]["files_in"]
    assert (file["source"], file["dest"], file["size"]) == (f"{here}/names", "in/list", 6)
    assert file["modified_at"].endswith("Z")
    assert [one["name"] for one in value["files"]] == ["x"]


def test_json_has_what_was_brought(here):
    value = json.loads(ran("run", "--json", "--out", "x", "echo hi > x").stdout)

    [brought] = value["fetched"]
    assert (brought["name"], brought["path"], brought["size"]) == ("x", f"{here}/x", 3)


def test_a_dry_run_says_which_files_would_travel(here):
    done = ran("run", "--dry-run", "--in", "names", "--out", "*.txt:out/", "true")

    assert f"  Files in  {here}/names (6 B) as names\n" in done.stdout
    assert f"  Files out *.txt to {here}/out/\n" in done.stdout
    assert "  Cwd       a fresh directory\n" in done.stdout


def test_without_files_there_is_nothing_to_get(here):
    id = submit("true")
    relayq("wait", id)

    done = relayq("get", id)

    assert done.returncode == 125
    assert f"{id} brought back no files: none was asked for (--out)" in done.stderr
    assert f"  hint: relayq show {id}" in done.stderr


def test_a_retry_brings_its_own_files(here):
    count = here / "count"
    line = f"echo x >> {count}; wc -l < {count} > n; test $(cat n) -gt 1"
    first = relayq("run", "--out", "n", line)
    assert (first.returncode, (here / "n").read_text().strip()) == (1, "1")

    again = relayq("retry", "--wait", "last")

    assert again.returncode == 0, again.stderr
    assert (here / "n").read_text().strip() == "2"


def test_python_has_the_files_of_a_result(here):
    with Relay() as relay:
        result = relay.job.run("sort names > x", files_in=["names"], files_out=[("x", "sorted")])
        result.wait(timeout=30)

        assert [(one.name, one.size) for one in result.files] == [("x", 6)]
        assert result.fetch() == [f"{here}/sorted"]
    assert (here / "sorted").read_text() == "a\nb\nc\n"
