"""An installation of relayq apart from these sources: a wheel made by hand, an environment."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from relayq.version import __version__

ROOT = Path(__file__).parents[2]


def make_wheel(folder: Path, version: str = __version__) -> Path:
    """Write a wheel of these sources that says another version of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"relayq-{version}-py3-none-any.whl"
    info = f"relayq-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as out:
        for path in sorted(ROOT.glob("relayq/**/*")):
            if path.is_file() and path.suffix != ".pyc":
                text = path.read_bytes()
                if path.name == "version.py":
                    text = text.replace(__version__.encode(), version.encode())
                out.writestr(str(path.relative_to(ROOT)), text)
        out.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: relayq\nVersion: {version}\n"
        )
        out.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        out.writestr(f"{info}/entry_points.txt", "[console_scripts]\nrelayq = relayq.cli:main\n")
        out.writestr(f"{info}/RECORD", "")
    return wheel


class Environment:
    """A virtual environment with relayq in it, and all else from the one of the tests."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
        # Ours comes before what the tests themselves may have installed.
        Path(packages, "rest.pth").write_text(sysconfig.get_path("purelib") + "\n")
        with zipfile.ZipFile(wheel) as content:
            content.extractall(packages)

    def relayq(self, *arguments: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run one command of it to its end."""
        return subprocess.run(
            [str(self.python), "-P", "-m", "relayq", *arguments],
            env=self.environ(home, **more),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def environ(self, home: Path, **more: str) -> dict[str, str]:
        """Return the environment of its processes."""
        kept = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        return {**kept, "RELAYQ_HOME": str(home), **more}
