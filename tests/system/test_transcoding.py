"""The runner program of transcode with real ffmpeg: what it makes, refuses and leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from relayq.errors import RelayqError
from relayq.kinds import Ended, HostFacts, find
from relayq.model.jobs import JobState, Reason
from tests.system import films
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.media]

KIND = find("transcode")


class Done:
    """What a run of the runner left."""

    def __init__(self, process: subprocess.Popen[str], said: str, report: Path) -> None:
        self.code = process.returncode
        self.said = said
        self.report: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
        code, number = (self.code, None) if self.code >= 0 else (None, -self.code)
        self.verdict = KIND.kind.interpret(
            Ended(code, number, "exit" if number is None else "signal", report=self.report or None)
        )

    @property
    def result(self) -> dict[str, Any]:
        assert self.code == 0, self.said
        return dict(self.report["result"])


class Bench:
    """A directory in which orders are carried out right here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.report = directory / "report.json"
        self.desk = directory / "desk"
        self.desk.mkdir()

    def begin(
        self, *, job: str = "j1", path: str = "", scratch: str = "", **asked: Any
    ) -> subprocess.Popen[str]:
        facts = HostFacts("here", str(self.directory), scratch=scratch)
        command = KIND.kind.plan(KIND.read_payload(asked), facts)
        self.report.unlink(missing_ok=True)
        process = subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env={
                "PATH": path or os.environ["PATH"],
                "HOME": str(self.directory),
                "RELAYQ_JOB_ID": job,
                "RELAYQ_ATTEMPT": "1",
                "RELAYQ_REPORT": str(self.report),
                "RELAYQ_DESK": str(self.desk),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write((command.stdin or b"").decode())
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, **asked: Any) -> Done:
        process = self.begin(**asked)
        said, _ = process.communicate(timeout=60)
        return Done(process, said, self.report)

    def progress(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.desk / "progress.json").read_text()))
        except (OSError, ValueError):
            return {}


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    directory = tmp_path_factory.mktemp("films")
    films.film(directory / "talk.mp4")
    films.film(directory / "long.mp4", seconds=20)
    films.film(directory / "mute.mp4", sound=False)
    return directory


@pytest.fixture
def bench(shelf, tmp_path):
    for one in shelf.iterdir():
        (tmp_path / one.name).symlink_to(one)
    return Bench(tmp_path)


def test_a_film_becomes_another_and_the_result_says_what_it_is(bench):
    done = bench.run(inputs="talk.mp4", output="o.mp4", preset="h264-small")

    result = done.result
    assert done.verdict.state is JobState.SUCCEEDED
    assert result["output"] == str(bench.directory / "o.mp4")
    assert result["duration"] == pytest.approx(3.0, abs=0.1)
    assert result["size"] == (bench.directory / "o.mp4").stat().st_size
    assert [one["codec"] for one in result["streams"]] == ["h264", "aac"]
    assert result["encoder"] == "libx264"
    assert result["speed"] > 0
    assert result["elapsed"] > 0
    assert bench.progress()["fraction"] == 1.0
    assert not films.drafts(bench.directory)


@pytest.mark.parametrize("preset", ["web", "vp9", "m4a", "mp3", "opus", "wav", "copy"])
def test_a_preset_makes_what_it_says(bench, preset):
    from relayq.model.media import find_preset

    ending = find_preset(preset).ending
    result = bench.run(inputs="talk.mp4", output=f"o.{ending}", preset=preset).result

    assert result["duration"] == pytest.approx(3.0, abs=0.2)
    assert len(result["streams"]) == (1 if ending in ("m4a", "mp3", "opus", "wav") else 2)


def test_quotes_spaces_filters_and_several_inputs_reach_ffmpeg_as_they_are(bench):
    title = 'it\'s "two" words; $HOME `id`'
    done = bench.run(
        inputs=["mute.mp4", "talk.mp4"],
        output="out/a 'b' %d:c.mkv".replace("%d", "d"),
        options=[
            *("-vf", "scale=80:-2, drawbox=x=1:color=red"),
            *("-map", "0:v", "-map", "1:a", "-metadata", f"title={title}"),
        ],
    )

    output = Path(done.result["output"])
    assert films.probe(output, "format_tags=title") == f'"{title.replace(chr(34), chr(34) * 2)}"'
    assert films.probe(output, "stream=width") == "80"


def test_a_part_of_a_film_is_no_cut_input(bench):
    assert bench.run(
        inputs="talk.mp4", output="o.mp4", options="-t 1 -c copy", input_options="-ss 1"
    ).result["duration"] == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    ("asked", "says", "next_step"),
    [
        ({"inputs": "none.mp4"}, "no such input on this host", "HOST:PATH"),
        ({"inputs": "zero.mp4"}, "zero.mp4 is empty", "copy it again"),
        ({"inputs": "text.mp4"}, "text.mp4 is no video or sound", "ffprobe"),
        ({"inputs": "cut.mp4"}, "3.0 s: an input couldn't be read to its end", "--no-check"),
        ({"inputs": "headless.mp4"}, "cut off", "moov atom not found"),
        ({"options": "-c:v libx999"}, "no encoder 'libx999'", "--needs encoder:libx999"),
        ({"options": "-foo 1"}, "Unrecognized option 'foo'", "relayq logs j1"),
        ({"options": "-vf nofilter"}, "No such filter", "relayq logs j1"),
        ({"output": "there.mp4"}, "there.mp4 exists", "--overwrite"),
        ({"output": "talk.mp4"}, "its own input", "another name"),
        ({"output": "~/no/where.mp4"}, "no such directory", "mkdir -p"),
        ({"output": "folder.mp4"}, "is a directory", "NAME.mp4"),
        ({"inputs": "folder.mp4"}, "is no file", ""),
        ({"inputs": "pipe.mp4"}, "is no file", ""),
        ({"inputs": "mute.mp4", "output": "o.mp3", "preset": "mp3"}, "no sound", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_said_with_what_to_do_and_nothing_is_left(
    bench, asked, says, next_step
):
    here = bench.directory
    (here / "zero.mp4").touch()
    (here / "text.mp4").write_text("this is no film")
    films.cut(here / "talk.mp4", here / "cut.mp4")
    films.ffmpeg("-i", str(here / "talk.mp4"), "-c", "copy", str(here / "late.mp4"))
    films.cut(here / "late.mp4", here / "headless.mp4")
    (here / "there.mp4").write_text("mine")
    (here / "folder.mp4").mkdir()
    os.mkfifo(here / "pipe.mp4")

    done = bench.run(**{"inputs": "talk.mp4", "output": "o.mp4", **asked})

    assert done.code == 1
    assert done.verdict.state is JobState.FAILED
    assert says in (done.verdict.error or "")
    assert next_step in (done.verdict.error or "")
    assert not films.drafts(here)
    assert not (here / "o.mp4").exists()
    assert (here / "there.mp4").read_text() == "mine"


@pytest.mark.parametrize("name", ["cut.mkv", "cut.webm"])
def test_a_film_that_was_cut_in_the_middle_never_passes(bench, name):
    whole = bench.directory / f"whole{Path(name).suffix}"
    films.ffmpeg("-i", str(bench.directory / "talk.mp4"), "-t", "3", str(whole))
    films.cut(whole, bench.directory / name)

    refused = bench.run(inputs=name, output="o.mp4")
    stretched = bench.run(inputs=name, output="o.mp4", options="-vf setpts=PTS*2 -an")
    taken = bench.run(inputs=name, output="o.mp4", check=False)

    assert "couldn't be read to its end" in (refused.verdict.error or "")
    assert "couldn't be read to its end" in (stretched.verdict.error or "")
    assert "couldn't be read to its end" in taken.result["remarks"][0]


def test_an_output_is_replaced_when_that_was_asked_and_only_by_a_whole_one(bench):
    there = bench.directory / "o.mp4"
    there.write_text("mine")

    bench.run(inputs="talk.mp4", output="o.mp4", options="-c:v libx999", replaces=True)
    kept = there.read_text()
    bench.run(inputs="talk.mp4", output="o.mp4", replaces=True)

    assert kept == "mine"
    assert films.probe(there).startswith("3")


def test_an_attempt_may_replace_what_an_earlier_one_of_its_job_made(bench):
    asked = {"inputs": "talk.mp4", "output": "o.mp4", "options": "-c copy"}
    first = bench.run(**asked)
    if not hasattr(os, "getxattr") or "user.relayq.job" not in os.listxattr(first.result["output"]):
        pytest.skip("this file system keeps no attributes")

    assert bench.run(**asked).code == 0
    assert "exists" in (bench.run(**asked, job="j2").verdict.error or "")


def test_an_output_may_go_to_a_url(bench):
    pytest.importorskip("fsspec")
    url = f"file://{bench.directory}/sent.mp4"

    sent = bench.run(inputs="talk.mp4", output=url, options="-c copy").result
    again = bench.run(inputs="talk.mp4", output=url, options="-c copy")
    unknown = bench.run(inputs="talk.mp4", output="nosuch://x/a.mp4", options="-c copy")

    assert sent["output"] == url
    assert films.probe(bench.directory / "sent.mp4").startswith("3")
    assert "exists" in (again.verdict.error or "")
    assert "can't be written to" in (unknown.verdict.error or "")
    assert not films.drafts(bench.directory)


def fake_hardware(directory: Path, *, works: bool) -> str:
    """Return a PATH whose ffmpeg has an encoder of hardware, which may fail at its real work."""
    real = shutil.which("ffmpeg")
    folder = directory / "bin"
    folder.mkdir()
    script = f"""#!{sys.executable}
import os, sys
words = sys.argv[1:]
if "-encoders" in words:
    print(" V....D h264_nvenc           NVIDIA NVENC H.264 encoder")
elif "h264_nvenc" in words and "lavfi" not in words and not {works}:
    sys.exit("No capable devices found")
else:
    if "h264_nvenc" in words:
        at = words.index("h264_nvenc")
        words[at] = "libx264"
        words = [w for i, w in enumerate(words) if w not in ("-rc", "vbr", "-cq", "22")]
    os.execv({real!r}, ["ffmpeg", *words])
"""
    (folder / "ffmpeg").write_text(script)
    (folder / "ffmpeg").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("works", [True, False])
def test_hardware_takes_over_when_asked_and_software_when_that_fails(bench, works):
    path = fake_hardware(bench.directory, works=works)

    result = bench.run(inputs="talk.mp4", output="o.mp4", preset="h264-fast", path=path).result

    assert result["encoder"] == ("h264_nvenc" if works else "libx264")
    remarks = result.get("remarks", [])
    assert works or "h264_nvenc failed here" in remarks[0]
    assert works or "No capable devices found" in remarks[0]
    assert not (works and remarks)


def test_nothing_is_encoded_by_hardware_unasked(bench):
    path = fake_hardware(bench.directory, works=True)
    off = {"inputs": "talk.mp4", "path": path}

    assert bench.run(**off, output="a.mp4", preset="h264").result["encoder"] == "libx264"
    by_hand = bench.run(**off, output="b.mp4", preset="h264-fast", hw="off")
    assert by_hand.result["encoder"] == "libx264"


def test_a_host_without_ffmpeg_is_the_hosts_fault(bench):
    done = bench.run(inputs="talk.mp4", output="o.mp4", path="/nowhere")

    assert done.verdict.reason == Reason.HOST
    assert "no ffmpeg" in (done.verdict.error or "")


def ffmpegs(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    return [one for one in found if one.name() == "ffmpeg"]


def in_the_middle(bench: Bench, **asked: Any) -> subprocess.Popen[str]:
    # As slow as it is shown, whatever the machine.
    slowly = {"input_options": "-re", "options": "-c:v libx264 -preset ultrafast"}
    process = bench.begin(inputs="long.mp4", output="o.mp4", **slowly, **asked)
    until(lambda: bench.progress().get("fraction"), within=20, what="some progress")
    return process


def test_progress_has_a_fraction_a_speed_and_what_is_left(bench):
    process = in_the_middle(bench)
    told = bench.progress()
    process.terminate()
    process.communicate(timeout=10)

    assert 0 < told["fraction"] < 1
    assert told["rate"].endswith("x")
    assert told["eta"] > 0
    assert told["text"] == "libx264"


def test_asked_to_end_it_leaves_no_ffmpeg_and_no_part_of_an_output(bench):
    process = in_the_middle(bench)
    working = ffmpegs(process)
    assert films.drafts(bench.directory)

    process.terminate()
    process.communicate(timeout=10)

    assert process.returncode == 143
    assert working
    assert not any(one.is_running() for one in working)
    assert not films.drafts(bench.directory)
    assert not (bench.directory / "o.mp4").exists()
    assert not bench.report.exists()


def test_killed_it_leaves_no_part_of_an_output_either(bench):
    process = in_the_middle(bench)
    working = ffmpegs(process)

    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()

    until(lambda: not films.drafts(bench.directory), within=10, what="the draft to go")
    for one in working:  # the shim's to end
        one.kill()
    until(
        lambda: not any(one.is_running() and one.status() != "zombie" for one in working),
        within=10,
        what="ffmpeg to end",
    )
    assert not films.drafts(bench.directory)
    assert not (bench.directory / "o.mp4").exists()


def test_what_a_power_cut_left_the_next_attempt_removes(bench):
    own = bench.directory / ".o.j1-0.part.mp4"
    others = bench.directory / ".p.j2-1.part.mp4"
    old = bench.directory / ".q.j3-1.part.mp4"
    for one in (own, others, old):
        one.write_bytes(b"half")
    os.utime(old, (1, 1))

    bench.run(inputs="talk.mp4", output="o.mp4", options="-c copy")

    assert films.drafts(bench.directory) == [others.name]


@pytest.mark.root
def test_a_full_disk_is_said_and_leaves_nothing(bench):
    full = bench.directory / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)], check=True)
    try:
        done = bench.run(
            inputs="talk.mp4", output=str(full / "o.mp4"), options="-c:v libx264 -qp 0"
        )
        scratch = bench.run(
            inputs=str(bench.directory / "talk.mp4"),
            output="o.mp4",
            options="-c:v libx264 -qp 0",
            scratch=str(full),
        )
        left = list(full.iterdir())
    finally:
        subprocess.run(["umount", str(full)], check=True)

    assert "no room for the output" in (done.verdict.error or "")
    assert "relayq retry j1" in (done.verdict.error or "")
    assert done.verdict.reason == Reason.EXIT
    assert scratch.verdict.reason == Reason.HOST
    assert not left


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"inputs": [], "output": "o.mp4"}, "no input"),
        ({"inputs": "a.mp4", "output": "o"}, "no ending"),
        ({"inputs": "a.mp4", "output": "o.m3u8"}, "many files"),
        ({"inputs": "a.mp4", "output": "o.mp4", "hw": "gpu"}, "hw is one of auto, off"),
        ({"inputs": "a.mp4", "output": "o.mp4", "preset": "h246"}, "no such preset"),
        ({"inputs": "a.mp4", "output": "o/"}, "no file name"),
        ({"inputs": "a\0b", "output": "o.mp4"}, "NUL"),
        ({"inputs": 3, "output": "o.mp4"}, "must be text"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_before_it_is_queued(asked, says):
    with pytest.raises(RelayqError, match=says):
        KIND.read_payload(asked)
