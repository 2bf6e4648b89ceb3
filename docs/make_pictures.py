"""Makes docs/pictures: what the main commands really print on a terminal, as SVG.

`python docs/make_pictures.py` starts a private broker and a few workers on this machine, each
under the name of a host and with tools of its own, types the commands on a pseudo-terminal and
draws what comes back.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from html import escape, unescape
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from relayq import Relay, clock, config, embedded

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
COLUMNS = 96
#: Each host's slots, its tools, and what it declares.
HOSTS: dict[str, tuple[int, str, dict[str, str]]] = {
    "thinkpad": (2, "git ffmpeg claude", {}),
    "pi4": (1, "git", {"ALIASES": "pi", "LABELS": "quiet"}),
    "nas": (2, "ffmpeg", {}),
    "studio": (4, "ffmpeg whisper-cli", {"LABELS": "heavy", "RESOURCES": "cuda=1"}),
}
#: What a worker's own PATH has of the system, beside its tools.
_NEEDED = "sh sleep printf cat env echo"
#: What rich gives a character of its font size.
_CELL = 12.2
_WORDS = "[^\N{NO-BREAK SPACE}]+(?:\N{NO-BREAK SPACE}[^\N{NO-BREAK SPACE}]+)*"
_PIECE = re.compile(
    r'<text class="([^"]*)" x="([\d.]+)" y="([\d.]+)" textLength="[\d.]+"([^>]*)>([^<]*)</text>'
)
THEME = TerminalTheme(
    (24, 26, 31),
    (214, 218, 226),
    [(24, 26, 31), (239, 104, 104), (132, 196, 110), (226, 183, 99)]
    + [(104, 160, 236), (196, 132, 226), (92, 194, 205), (214, 218, 226)],
    [(120, 126, 138), (255, 130, 130), (156, 220, 134), (245, 206, 124)]
    + [(134, 184, 255), (216, 158, 244), (122, 216, 226), (240, 242, 246)],
)

#: Programs of the pictures' own, which take as long as real ones would.
PROGRAMS = {
    "encode": r"""
        case $1 in
            talk*) relayq progress 62% --eta 135s --rate 2.4x ;;
            *) relayq progress 12% --eta 9m ;;
        esac
        sleep 60""",
    "publish": "sleep 1",
    "train": "sleep 60 & sleep 60 & wait",
    "backup": "sleep 0.4; echo 'backup: no space left on /mnt/usb' >&2; exit 3",
    "check": r"""
        for part in cart payment refunds; do
            sleep 0.2; printf '%-10s \033[32m....................\033[0m\n' "$part"
        done; printf '\033[1;32m60 passed\033[0m in 0.6 s\n'""",
}
#: What is there before the pictures are taken: seconds to wait after it, and the words.
BEFORE = (
    (1.0, "--on nas --name dump -- echo dumped 4,211 rows"),
    (4.0, "--on pi4 -- backup /home"),
    (3.0, "--on thinkpad --name talk -- encode talk.mov talk.mp4"),
    (2.0, "--on thinkpad --name photos -- encode 2026-11/*.mov"),
    (1.5, "--on thinkpad -- publish talk.mp4"),
    (1.0, "--on nas -- train --epochs 40"),
)
SHOTS = {
    "run": ["relayq run --on nas check", "relayq run --on pi4 backup /srv", "echo $?"],
    "ps": ["relayq ps"],
    "show": ["relayq show {train}"],
    "status": ["relayq status"],
    "pick": ["relayq hosts pick --needs ffmpeg", "relayq hosts show studio"],
    "cancel": ["relayq cancel {train}", "relayq wait {train}", "echo $?"],
}


class Scene:
    """A home directory with programs, a broker and the hosts' workers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._workers: list[subprocess.Popen[bytes]] = []
        self._status = 0
        self._write_programs()
        self._broker = config.load({"RELAYQ_HOME": str(directory / "broker")})
        url = embedded.start_broker(self._broker).url
        self.relay = Relay(url=url, home=self._home("thinkpad"))
        self._environ = {
            "HOME": str(directory),
            "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "RELAYQ_BROKER__URL": url,
            # What else this machine does is no part of the scene.
            "RELAYQ_WORKER__CPU_THRESHOLD": "100",
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "USER": "me",
            "LOGNAME": "me",
        }

    def _home(self, host: str) -> Path:
        home = self.directory / f".{host}"
        home.mkdir(mode=0o700, exist_ok=True)
        return home

    def _write_programs(self) -> None:
        programs = PROGRAMS | {
            # A job's environment has no PYTHONPATH.
            "relayq": f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m relayq "$@"'
        }
        for name, body in programs.items():
            path = self.directory / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{body}\n")
            path.chmod(0o755)

    def environment(self, host: str) -> dict[str, str]:
        """Return the environment of that host."""
        slots, _, declared = HOSTS[host]
        own = {"RELAYQ_HOME": str(self._home(host)), "RELAYQ_WORKER__NAME": host}
        own["RELAYQ_WORKER__MAX_CONCURRENT"] = str(slots)
        return self._environ | own | {f"RELAYQ_WORKER__{k}": v for k, v in declared.items()}

    def _tools(self, host: str) -> Path:
        """Return a directory that has the programs of one host, and nothing else."""
        there = self.directory / f"tools-{host}"
        there.mkdir()
        for name in _NEEDED.split():
            (there / name).symlink_to(shutil.which(name) or f"/bin/{name}")
        for name in HOSTS[host][1].split():
            (there / name).write_text(f"#!/bin/sh\necho {name} version 7.1\n")
            (there / name).chmod(0o755)
        return there

    def start(self) -> None:
        """Start the workers, and wait until they are there."""
        self.relay.session()
        key = self._home("thinkpad") / "fleet.key"
        for host in HOSTS:
            if not (self._home(host) / "fleet.key").exists():
                shutil.copy(key, self._home(host))
            path = {"PATH": f"{self.directory / 'bin'}:{self._tools(host)}"}
            self._workers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "relayq.worker"],
                    env=self.environment(host) | path,
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        deadline = time.monotonic() + 20
        while self.relay.job.worker_status()["total_workers"] < len(HOSTS):
            if time.monotonic() > deadline:
                raise SystemExit("the workers don't come")
            clock.sleep(0.1)

    def submit(self, words: str) -> str:
        """Queue a job and return its id."""
        argv = ["sh", "-c", f"set -f; exec relayq submit {words}"]
        done = subprocess.run(
            argv,
            env=self.environment("thinkpad"),
            cwd=self.directory,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"relayq submit {words}: {done.stderr}")
        return done.stdout.strip()

    def type(self, line: str) -> str:
        """Run a line on a terminal and return all that it showed."""
        if line == "echo $?":
            return f"{self._status}\r\n"
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        process = subprocess.Popen(
            ["sh", "-c", line],
            env=self.environment("thinkpad"),
            cwd=self.directory,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        # EIO is how a terminal says that nobody has it open any more.
        with suppress(OSError), open(ours, "rb", buffering=0) as terminal:
            while piece := terminal.read(65_536):
                shown += piece
        self._status = process.wait(60)
        return shown.decode()

    def close(self) -> None:
        """End everything."""
        for record in self.relay.job.list(limit=100):
            self.relay.job.cancel(record.id)
        clock.sleep(1.0)
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.wait(20)
        self.relay.close()
        embedded.stop_broker(self._broker)


@contextmanager
def scene() -> Iterator[Scene]:
    """Set the scene, and clear it."""
    with tempfile.TemporaryDirectory(prefix="rq-", dir="/tmp") as name:
        there = Scene(Path(name))
        try:
            there.start()
            yield there
        finally:
            there.close()


def draw(name: str, shown: list[tuple[str, str]]) -> None:
    """Write one picture: each line that was typed, and what came back."""
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False
    )
    for line, output in shown:
        console.print(Text.assemble(("$ ", "bold green"), (line, "bold")))
        text = output.rstrip("\r\n").replace("\r\n", "\n")
        console.print(Text.from_ansi(text), no_wrap=True, overflow="ignore", crop=False)
    svg = console.export_svg(title="relayq", theme=THEME, unique_id=f"relayq-{name}")
    svg = _PIECE.sub(_by_columns, svg)
    # A page that embeds a picture fetches nothing from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace").replace(
        "ui-monospace, monospace", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"
    )
    (PICTURES / f"{name}.svg").write_text(svg, encoding="utf-8")


def _by_columns(match: re.Match[str]) -> str:
    """Return a text as pieces with a place each: renderers differ in how they draw wide gaps."""
    style, left, line, rest, text = match.groups()
    return "".join(
        f'<text class="{style}" x="{float(left) + _CELL * piece.start():g}" y="{line}" '
        f'textLength="{_CELL * len(piece[0]):g}"{rest}>{escape(piece[0])}</text>'
        for piece in re.finditer(_WORDS, unescape(text))
    )


def main() -> None:
    """Take every picture."""
    PICTURES.mkdir(exist_ok=True)
    with scene() as there:
        ids = {}
        for seconds, words in BEFORE:
            ids[re.split(r"-- ", words)[1].split()[0]] = there.submit(words)
            clock.sleep(seconds)
        there.type("relayq pause --host studio --reason 'cutting a film'")
        clock.sleep(2.0)
        for name, lines in SHOTS.items():
            typed = [line.format(train=ids["train"]) for line in lines]
            draw(name, [(line, there.type(line)) for line in typed])


if __name__ == "__main__":
    main()
