"""The documentation is complete, and what it shows works."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = r"\n+```{language}\n(.*?)\n```"
RUNS = re.findall("<!-- runs -->" + FENCE.format(language="python"), README, re.DOTALL)
EXAMPLES = sorted(ROOT.glob("examples/*.py"))


def in_code() -> str:
    """Return everything that the reference shows as code."""
    pages = [ROOT / "relayq" / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def undocumented(names: list[str]) -> list[str]:
    """Return the names that the reference never shows as code."""
    code = in_code()
    return [n for n in names if not re.search(rf"(?<![\w.]){re.escape(n)}(?!\w)", code)]


def run_python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in the current environment with this checkout's relayq."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def own_fleet(home, tmp_path):
    """A machine without configuration, and nothing left on it."""
    yield tmp_path
    down = run_python("-m", "relayq", "down", "--kill", cwd=tmp_path)
    assert down.returncode == 0, down.stderr


@pytest.mark.parametrize("name", ["run", "test"])
def test_the_readme_has_each_command_once_and_on_one_line(name):
    marker = f"<!-- command: {name} -->"

    assert README.count(marker) == 1
    (command,) = re.findall(marker + FENCE.format(language=r"\w*"), README, re.DOTALL)
    assert command.strip()
    assert "\n" not in command


@pytest.mark.system
@pytest.mark.parametrize("block", RUNS, ids=[f"block{n}" for n in range(len(RUNS))])
def test_a_code_block_of_the_readme_runs(block, own_fleet):
    ran = run_python("-c", block, cwd=own_fleet)

    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_it_shows(example):
    assert ast.get_docstring(ast.parse(example.read_text(encoding="utf-8")))


@pytest.mark.system
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, own_fleet):
    ran = run_python(str(example), cwd=own_fleet)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_state_is_documented():
    from relayq.model.jobs import JobState

    assert not undocumented([state.value for state in JobState])


def test_every_redis_key_is_documented():
    from relayq.store.keys import KEYS

    # A key for each job or host reads `job:<id>` in the reference.
    assert not undocumented([suffix for suffix, _, _ in KEYS.values()])


def test_every_configuration_key_is_documented(home):
    from relayq.config import load

    assert not undocumented(sorted(load({"RELAYQ_HOME": str(home)}).origins))
