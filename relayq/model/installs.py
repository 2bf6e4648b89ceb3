"""How relayq came to be on a machine, and which commands put another version in its place.

The installers write it down in `<home>/installed.json`. Never the system's own Python: what isn't
in an environment of its own is its owner's to upgrade.
"""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from relayq.errors import RelayqError

UV, VENV = "uv", "venv"
_EXTRA = re.compile(r"[a-z0-9][a-z0-9_-]*")
_RELEASE = re.compile(r"relayq\s*([=<>~!]=?\s*[0-9][A-Za-z0-9.*+!]*)?")


@dataclass(frozen=True, slots=True)
class Install:
    """An installation: `origin` is uv itself, or the directory of the virtual environment."""

    method: str
    source: str
    extras: tuple[str, ...]
    origin: str

    @property
    def package(self) -> str:
        """The package with its extras."""
        return f"relayq[{','.join(self.extras)}]" if self.extras else "relayq"


def read_install(text: str) -> Install:
    """Return what an installer wrote down; ValueError for anything else."""
    said = json.loads(text)
    try:
        method, source, extras = said["method"], said["source"], tuple(said.get("extras", ()))
        origin = said.get(method) or (UV if method == UV else "")
        texts = (method, source, origin, *extras)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("something is missing in it") from error
    if method not in (UV, VENV) or not all(isinstance(one, str) and one for one in texts):
        raise ValueError(f"expected the method {UV} or {VENV}")
    if not all(_EXTRA.fullmatch(extra) for extra in extras):
        raise ValueError("an extra is a word")
    return Install(method, source, extras, origin)


def check_source(source: str) -> str:
    """Return where relayq may come from; a word that pip would take for an option may not."""
    is_way = source.startswith(("git+https://", "git+ssh://", "git+file://", "https://", "http://"))
    is_way = is_way or os.path.isabs(source) or _RELEASE.fullmatch(source) is not None
    if not is_way or any(ord(letter) < 32 for letter in source):
        raise RelayqError(
            f"{source!r} is nowhere that relayq could come from",
            hint="a Git URL (git+https://...), the URL or the path of a wheel, the path of a "
            "checkout or of a directory of wheels, or relayq==1.2",
        )
    return source


def commands(install: Install, source: str, *, is_links: bool, python: str) -> list[list[str]]:
    """Return what to run, all but the first only if that one left the version as it was.

    `is_links` says that the source is a directory of wheels; `python` is the version that runs now,
    which uv is to take.
    """
    links = ["--no-index", "--find-links", source] if is_links else []
    wanted = install.package if is_links else requirement(install.package, source)
    if install.method == UV:
        forced = ["--force", "--reinstall-package", "relayq", "--python", python]
        return [[install.origin, "tool", "install", "--quiet", *forced, *links, wanted]]
    own = os.path.join(install.origin, "bin", "python")
    pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *links]
    # pip takes what has the same version for the same.
    return [[*pip, "--upgrade", wanted], [*pip, "--force-reinstall", "--no-deps", wanted]]


def requirement(package: str, source: str) -> str:
    """Return a source as pip and uv take it."""
    if _RELEASE.fullmatch(source):
        return package + source.removeprefix("relayq").strip()
    return f"{package} @ {f'file://{quote(source)}' if os.path.isabs(source) else source}"


def shown(argvs: Sequence[Sequence[str]]) -> list[str]:
    """Return commands as they can be typed."""
    import shlex

    return [shlex.join(argv) for argv in argvs]
