"""Wheelhouses of this tree: what the installers install in guests, which reach no index."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guests import install

#: What a wheel of relayq is made of.
SOURCES = ("relayq", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def wheelhouse(directory: Path) -> Path:
    """Make a directory of all wheels, with relayq as it is here."""
    scratch = directory.with_name(f"{directory.name}-source")
    scratch.mkdir(parents=True)
    for name in SOURCES:
        path = install.TREE / name
        if path.is_dir():
            shutil.copytree(path, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(path, scratch / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index"]
    found = ["--find-links", str(install.wheels()), "-w", str(directory)]
    subprocess.run([*pip, *found, str(scratch)], check=True, stdin=subprocess.DEVNULL)
    return with_others(directory)


def newer(older: Path, directory: Path, version: str) -> Path:
    """Make a directory of all wheels in which relayq is the same, but calls itself newer."""
    directory.mkdir()
    (wheel,) = older.glob("relayq-*.whl")
    before = wheel.name.split("-")[1]
    target = directory / wheel.name.replace(before, version)
    with zipfile.ZipFile(wheel) as there, zipfile.ZipFile(target, "w") as made:
        for entry in there.infolist():
            name = entry.filename.replace(f"relayq-{before}.", f"relayq-{version}.")
            content = there.read(entry)
            if name.endswith((".dist-info/METADATA", "relayq/version.py")):
                content = content.replace(before.encode(), version.encode())
            if name.endswith(".dist-info/RECORD"):
                # Without checksums, which pip doesn't compare.
                lines = content.decode().replace(f"relayq-{before}.", f"relayq-{version}.")
                names = [line.split(",")[0] for line in lines.splitlines()]
                content = "".join(f"{one},,\n" for one in names).encode()
            made.writestr(name, content)
    return with_others(directory)


def with_others(directory: Path) -> Path:
    """Put the wheels that relayq needs beside it."""
    for wheel in install.wheels().glob("*.whl"):
        if not wheel.name.startswith("uv-"):
            place(wheel, directory / wheel.name)
    return directory


def uv(directory: Path) -> Path:
    """Unpack uv from its wheel."""
    (wheel,) = install.wheels().glob("uv-*.whl")
    with zipfile.ZipFile(wheel) as there:
        (name,) = [one for one in there.namelist() if one.endswith("/scripts/uv")]
        path = Path(there.extract(name, directory))
    path.chmod(0o755)
    return path


def place(wheel: Path, target: Path) -> None:
    """Have a file at another place, too."""
    try:
        os.link(wheel, target)
    except OSError:
        shutil.copyfile(wheel, target)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """What guests see below /srv: this version's wheels, a newer version's, and uv."""
    tmp_path.chmod(0o755)
    wheels = wheelhouse(tmp_path / "wheels")
    yield {
        "/srv/wheels": wheels,
        "/srv/newer": newer(wheels, tmp_path / "newer", "99.0"),
        "/srv/uv": uv(tmp_path / "uv"),
    }
    shutil.rmtree(tmp_path)
