"""`relayq config`, as real commands: show, check, path, edit, schema."""

from __future__ import annotations

import json
import os
import pty
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]


def relayq(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relayq", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.fixture
def file(home):
    return home / "config.yml"


def editor(tmp_path: Path, program: str) -> str:
    """Return an editor that does what a shell script says, its file being $1."""
    script = tmp_path / "my editor"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    return f"'{script}'"


def test_show_has_each_value_with_its_origin(file):
    file.write_text("worker:\n  name: pi4\n")

    done = relayq("config", "show", RELAYQ_DEFAULTS__TIMEOUT="90m", RELAYQ_DEFAULTS__MAX_LOG="5MB")

    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert lines["home"] == [str(file.parent), "RELAYQ_HOME"]
    assert lines["worker.name"] == ["pi4", f"{file}:2"]
    assert lines["defaults.timeout"] == ["90m", "RELAYQ_DEFAULTS__TIMEOUT"]
    assert lines["defaults.max_log"] == ["5MB", "RELAYQ_DEFAULTS__MAX_LOG"]
    assert lines["defaults.grace"] == ["10s", "default"]
    assert lines["broker.url"] == ["-", "default"]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_show_hides_every_secret(file, form):
    file.write_text("broker: {url: 'sentinel://u:hush1@a:1;sentinel://:hush2@b:2/0'}\n")
    by_url = relayq("config", "show", *form)
    (file.parent / "pw").write_text("hush3")
    file.write_text("broker: {host: there, password_file: pw}\n")
    by_file = relayq("config", "show", *form)

    assert by_url.returncode == by_file.returncode == 0
    assert "hush" not in by_url.stdout + by_file.stdout
    assert "sentinel://****@a:1;sentinel://****@b:2/0" in by_url.stdout
    assert "****" in by_file.stdout


def test_show_as_json_has_seconds_and_bytes(file):
    shown = json.loads(relayq("config", "show", "--json").stdout)

    assert shown["schema"] == 1
    assert shown["config"]["defaults.timeout"] == {"value": 18_000, "origin": "default"}
    assert shown["config"]["logging.file"]["value"] == str(file.parent / "worker.log")


def test_check_names_every_problem_with_its_place_and_the_likely_key(file):
    file.write_text("worker:\n  nam: pi4\n  max_concurrent: 0\n")

    done, as_json = relayq("config", "check"), relayq("config", "check", "--json")

    assert done.stderr.splitlines() == [
        f"{file}:2:3: unknown key 'worker.nam' (did you mean 'name'?)",
        f"{file}:3:19: worker.max_concurrent: expected a whole number from 1 on, got '0'",
        "  hint: relayq config edit",
    ]
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(as_json.stdout)["ok"] is False
    problems = json.loads(as_json.stdout)["problems"]
    assert [problem["place"] for problem in problems] == [f"{file}:2:3", f"{file}:3:19"]
    assert all(problem["message"].startswith(problem["place"]) for problem in problems)
    assert as_json.returncode == 1


def test_check_is_content_with_a_good_file_and_with_none(file):
    without = relayq("config", "check")
    file.write_text("worker: {name: pi4}")

    assert (without.returncode, relayq("config", "check").returncode) == (0, 0)
    assert "is good" in without.stdout


def test_path_is_told_even_of_a_broken_file(file):
    file.write_text("{")

    assert relayq("config", "path").stdout == f"{file}\n"
    assert json.loads(relayq("config", "path", "--json").stdout)["exists"] is True


def test_schema_is_the_one_of_the_documentation(home):
    done = relayq("config", "schema")

    assert done.stdout == (ROOT / "docs" / "config.schema.json").read_text()


def test_edit_saves_what_is_right(file, tmp_path):
    elsewhere = tmp_path / "dotfiles.yml"
    elsewhere.write_text("worker: {name: pi4}\n")
    elsewhere.chmod(0o640)
    file.symlink_to(elsewhere)
    visual = editor(tmp_path, 'echo "defaults: {timeout: 1h}" >> "$1"')

    done = relayq("config", "edit", VISUAL=visual, EDITOR="false")

    assert done.returncode == 0, done.stderr
    assert elsewhere.read_text() == "worker: {name: pi4}\ndefaults: {timeout: 1h}\n"
    assert file.is_symlink()
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o640
    assert "saved" in done.stdout
    assert not [*tmp_path.glob("*.draft"), *file.parent.glob("*.draft")]


def test_edit_keeps_the_old_file_and_the_new_text_when_that_is_broken(file, tmp_path):
    file.write_text("worker: {name: pi4}\n")
    spoil = editor(tmp_path, 'echo "wroker: {}" >> "$1"')

    broken = relayq("config", "edit", EDITOR=spoil)

    assert broken.returncode == 1
    assert file.read_text() == "worker: {name: pi4}\n"
    assert "config.yml.draft:2:1: unknown key 'wroker' (did you mean 'worker'?)" in broken.stderr
    assert f"{file} stays as it was; your text is in {file}.draft" in broken.stderr
    assert "hint: relayq config edit goes on with it" in broken.stderr

    mend = editor(tmp_path, 'printf "worker: {name: pi4}\\nlease: {}\\n" > "$1"')
    mended = relayq("config", "edit", EDITOR=mend)

    assert mended.returncode == 0, mended.stderr
    assert file.read_text() == "worker: {name: pi4}\nlease: {}\n"


def test_edit_begins_with_examples_and_writes_nothing_unasked(file, tmp_path):
    saw = tmp_path / "saw"

    done = relayq("config", "edit", EDITOR=editor(tmp_path, f'cp "$1" "{saw}"'))

    assert (done.returncode, done.stdout) == (0, "nothing changed\n")
    assert not list(file.parent.iterdir())
    examples = re.sub("(?m)^#(?! )", "", saw.read_text())
    file.write_text(examples.replace("password_file", "#password_file"))
    assert relayq("config", "check").returncode == 0


def test_edit_with_an_editor_that_fails_changes_nothing(file, tmp_path):
    file.write_text("worker: {name: pi4}\n")

    done = relayq("config", "edit", EDITOR=editor(tmp_path, 'echo x > "$1"; exit 3'))

    assert done.returncode == 1
    assert file.read_text() == "worker: {name: pi4}\n"


def test_edit_asks_on_a_terminal_whether_to_go_on(file, tmp_path):
    script = 'grep -q wroker "$1" && echo "lease: {}" > "$1" || echo "wroker: {}" > "$1"'
    master, slave = pty.openpty()

    done = subprocess.Popen(
        [sys.executable, "-m", "relayq", "config", "edit"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "EDITOR": editor(tmp_path, script)},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    os.write(master, b"\n")

    assert done.wait(30) == 0
    assert file.read_text() == "lease: {}\n"
    os.close(master)
