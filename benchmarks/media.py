"""A transcode: what relayq's own processes cost beside ffmpeg's."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.figures import Figures
from benchmarks.peers import Relayq
from benchmarks.processes import Redis, cpu_seconds, python
from relayq import clock

#: How long a shim waits for another attempt before it ends, and more.
_SHIMS_END = 4.0
_PATIENCE = 60.0
#: How long the idle worker is looked at before.
_IDLE = 5.0


def media(figures: Figures, redis: Redis, *, rounds: int, seconds: float, size: str) -> None:
    """Transcode a film with the preset for browsers, followed by `relayq transcode`."""
    if shutil.which("ffmpeg") is None:
        return
    redis.connection.flushall()
    with tempfile.TemporaryDirectory(prefix="relayq-bench-") as name:
        directory = Path(name)
        peer = _Studio(redis.url, directory)
        _film(directory / "film.mp4", seconds, size)
        try:
            peer.start()
            peer.result(peer.submit("echo ready"), 30)
            deadline = clock.boottime() + _PATIENCE
            while not peer.knows_its_encoders():
                if clock.boottime() > deadline:
                    raise SystemExit("the worker doesn't find its encoders")
                clock.sleep(0.2)
            what = f"film of {seconds:g} s, {size}"
            for _ in range(rounds):
                took, own = _turn(figures, peer, what, ["-p", "web", "film.mp4", "out.mp4"])
                figures.add(f"{what}: CPU beside ffmpeg's", "relayq", "%", 100 * own / took)
            # On a busy machine the work lasts longer, and so does looking after it: what that
            # costs for as long as the film lasts is the same on every one.
            shown = ["film.mp4", "out.mp4", "--input-options", "-re", "--", "-c", "copy"]
            for _ in range(rounds):
                _turn(figures, peer, f"{what}, as it is shown", shown)
        finally:
            peer.close()


class _Studio(Relayq):
    """relayq, with an ffmpeg that leaves what CPU it took: two numbers a line."""

    def environment(self) -> dict[str, str]:
        """Return an environment in which ffmpeg is our own."""
        return {**super().environment(), "PATH": f"{self._programs()}:{os.environ['PATH']}"}

    def _programs(self) -> Path:
        folder = self.directory / "bin"
        if not folder.exists():
            folder.mkdir()
            script = folder / "ffmpeg"
            # What a shell itself costs is two milliseconds.
            script.write_text(
                f'#!/bin/sh\n{shutil.which("ffmpeg")} "$@"\ncode=$?\n'
                f"times > {folder}/times.$$\nexit $code\n"
            )
            script.chmod(0o755)
        return folder

    def knows_its_encoders(self) -> bool:
        """Whether its worker has asked ffmpeg."""
        hosts = self.relay.session().store.hosts.list(online_within=60)
        return any("encoder:libx264" in host.capabilities for host in hosts)

    def spent(self) -> float:
        """Return the CPU time of all ffmpegs since the last call."""
        total = 0.0
        for path in self._programs().glob("times.*"):
            total += sum(map(_seconds, path.read_text().splitlines()[1].split()))
            path.unlink()
        return total


def _seconds(text: str) -> float:
    minutes, _, rest = text.partition("m")
    return int(minutes) * 60 + float(rest.rstrip("s"))


def _film(path: Path, seconds: float, size: str) -> None:
    source = f"testsrc2=size={size}:rate=25:duration={seconds}"
    words = [*("-f", "lavfi", "-i", source), *("-f", "lavfi", "-i", f"sine=duration={seconds}")]
    words += ["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", str(path)]
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *words], check=True)


def _turn(figures: Figures, peer: _Studio, what: str, words: list[str]) -> tuple[float, float]:
    """Transcode once; returns the CPU time of ffmpeg and of all that is relayq's."""
    pids = [worker.pid for worker in peer.workers]
    clock.sleep(_SHIMS_END)
    before = cpu_seconds(pids)
    clock.sleep(_IDLE)
    idle = (cpu_seconds(pids) - before) / _IDLE
    peer.spent()
    before, began = cpu_seconds(pids), resource.getrusage(resource.RUSAGE_CHILDREN)
    began_at = clock.boottime()
    subprocess.run(
        python("-m", "relayq", "transcode", "--overwrite", *words),
        env=peer.environment(),
        cwd=peer.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    lasted = clock.boottime() - began_at
    # Of what the shim waited for the fork server knows when the shim has ended.
    clock.sleep(_SHIMS_END)
    ffmpeg = peer.spent()
    # The worker would have been there anyway.
    host = cpu_seconds(pids) - before - ffmpeg - idle * (lasted + _SHIMS_END)
    client = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    figures.add(f"{what}: lasts", "relayq", "s", lasted)
    figures.add(f"{what}: CPU", "ffmpeg", "s", ffmpeg)
    figures.add(f"{what}: CPU", "relayq, the host", "s", host)
    figures.add(f"{what}: CPU", "relayq, the command", "s", client)
    return ffmpeg, host + client
