"""A place for the real programs: not root, a home with their logins, a directory to work in.

Everything below one directory, so that whatever runs there can be found and ended.
"""

from __future__ import annotations

import functools
import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.agents import install
from tests.agents.server import MockApi

ROOT = Path(__file__).parents[3]
#: Nobody listens there.
NOWHERE = "http://127.0.0.1:9"
CODEX = """
model = "gpt-5"
model_provider = "mock"
[model_providers.mock]
name = "mock"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
request_max_retries = 1
stream_max_retries = 1
"""
#: With an address of its own, gemini takes no way to log in for granted.
GEMINI = {"security": {"auth": {"selectedType": "gemini-api-key"}}}


def user() -> dict[str, Any]:
    """Return the options of subprocess for who runs the programs: nobody, when we are root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}


@functools.cache
def interpreter() -> tuple[str, dict[str, str]] | None:
    """Return a Python that this user can run relayq with, and its environment; None if none can.

    Root's own Python may lie in root's home: then the machine's of the same version will do.
    """
    version = f"python3.{sys.version_info.minor}"
    libraries = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    paths = [str(ROOT), *libraries, str(Path(__file__).with_name("older"))]
    environ = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    for python in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        argv = [python or "false", "-c", "import relayq.clock, celery, psutil, redis"]
        with suppress(PermissionError):
            done = subprocess.run(argv, capture_output=True, cwd="/", env=environ, **user())
            if done.returncode == 0:
                return argv[0], environ
    return None


@dataclass(frozen=True)
class Place:
    """One directory with a home and a directory to work in."""

    directory: Path
    api: MockApi

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def work(self) -> Path:
        return self.directory / "work"

    @property
    def keys(self) -> dict[str, str]:
        """What agents.env holds: dummy keys, and where the mock is."""
        return {
            "CLAUDE_CODE_OAUTH_TOKEN": "dummy-key-of-claude",
            "ANTHROPIC_BASE_URL": self.api.url,
            "OPENAI_API_KEY": "dummy-key-of-codex",
            "GEMINI_API_KEY": "dummy-key-of-gemini",
            "GOOGLE_GEMINI_BASE_URL": self.api.url,
        }

    def environment(self, **more: str) -> dict[str, str]:
        """Return what a login of that user would have, and nothing of the tests' own."""
        programs = install.programs(install.place())
        path = os.pathsep.join([str(programs), "/usr/local/bin", "/usr/bin", "/bin"])
        own = {"HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8"}
        return {**own, "TMPDIR": str(self.directory / "tmp"), **more}

    def build(self) -> None:
        """Make the directories, and the settings that lead the programs to the mock."""
        for path in (
            self.home / ".codex",
            self.home / ".codex-away",
            self.home / ".gemini",
            self.work,
        ):
            path.mkdir(parents=True)
        (self.directory / "tmp").mkdir()
        (self.home / ".codex" / "config.toml").write_text(CODEX.format(url=self.api.url))
        away = CODEX.format(url=NOWHERE)
        (self.home / ".codex-away" / "config.toml").write_text(away)
        (self.home / ".gemini" / "settings.json").write_text(json.dumps(GEMINI))
        self.hand_over(self.directory)

    def hand_over(self, path: Path) -> None:
        """Give a file or a tree to the user that runs the programs."""
        if who := user():
            for one in (path, *path.rglob("*")):
                os.chown(one, who["user"], who["group"])
