"""A shim on a full disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from relayq.host.process import (
    Shim,
    SpawnFailed,
)
from tests.system.shims.bench import Bench, ended, python
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture
def small_disk(bench: Bench) -> Iterator[Path]:
    mount = bench.spool / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip(f"may not mount a tmpfs: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.root
def test_a_success_on_a_full_disk_stays_a_success(bench, small_disk):
    script = "import os; [os.write(1, b'x' * 65536) for _ in range(32)]"
    directory = bench.prepare(*python(script), spool=small_disk)
    bench.forks.spawn(directory)

    record, out, _ = ended(Shim(directory))

    assert (record.status, record.code) == ("exited", 0)
    assert record.dropped_bytes > 0
    assert record.dropped_bytes + len(out) == 32 * 65536
    assert record.output_bytes == (directory / "output").stat().st_size


@pytest.mark.root
def test_output_goes_on_whole_once_the_disk_has_room_again(bench, small_disk):
    ballast = small_disk / "ballast"
    script = (
        "import os, sys; os.write(1, b'x' * 300000); os.write(2, b'full');\n"
        "while os.path.exists(sys.argv[1]): pass\n"
        "os.write(1, b'end')"
    )
    directory = bench.prepare(*python(script, ballast), spool=small_disk)
    ballast.write_bytes(b"b" * 100_000)
    bench.forks.spawn(directory)
    shim = Shim(directory)
    until(lambda: (directory / "output").stat().st_size > 65536, what="some output")
    until(lambda: os.statvfs(small_disk).f_bavail <= 16, what="the disk to be full")

    ballast.unlink()

    record, out, _ = ended(shim)
    assert record.code == 0
    assert out.endswith(b"end")
    assert record.dropped_bytes > 0


@pytest.mark.root
def test_a_job_is_refused_when_not_even_its_end_could_be_written(bench, small_disk):
    directory = bench.prepare("true", spool=small_disk)
    with suppress(OSError):
        (small_disk / "ballast").write_bytes(b"b" * 10**6)

    with pytest.raises(SpawnFailed, match="No space left"):
        bench.forks.spawn(directory)
