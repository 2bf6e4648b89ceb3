"""The installers as shell scripts: what shellcheck says, and the specifications in bats."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.guests.install import TREE

pytestmark = pytest.mark.shell

SCRIPTS = [*sorted(TREE.glob("*.sh")), TREE / "installers/assemble"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_posix_and_shellcheck_has_nothing_to_say(path):
    words = ["shellcheck", "-s", "sh", str(path)]
    checked = subprocess.run(words, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout


def test_the_installers_do_what_their_specifications_say(tmp_path):
    ran = subprocess.run(
        ["bats", str(TREE / "tests/installers")],
        capture_output=True,
        text=True,
        timeout=110,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
    )

    failed = [line for line in ran.stdout.splitlines() if not line.startswith("ok ")]
    assert ran.returncode == 0, "\n".join(failed) + ran.stderr
