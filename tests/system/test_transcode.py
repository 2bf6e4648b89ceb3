"""Transcodes as jobs: from a file here to a file here, whatever happens to the worker meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from relayq.errors import JobFailed, RelayqError, Unplaceable
from tests.system import films
from tests.system.commands import environ, relayq
from tests.system.test_staging import start_apart
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.media]

#: As slow as it is shown, whatever the machine: it can be met in the middle.
SLOWLY = {"input_options": "-re", "options": "-c:v libx264 -preset ultrafast"}


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    directory = tmp_path_factory.mktemp("films")
    films.film(directory / "talk.mp4", seconds=2)
    films.film(directory / "long.mp4", seconds=20)
    return directory


def knows_its_encoders(fleet):
    """Wait until the worker has asked its ffmpeg."""
    store = fleet.relay.session().store

    def found() -> bool:
        hosts = store.hosts.list(online_within=60)
        return any("encoder:libx264" in host.capabilities for host in hosts)

    until(found, within=60, what="the worker to find its encoders")
    return fleet


@pytest.fixture
def studio(shelf, tmp_path, monkeypatch, fleet):
    """A fleet, and a directory with films that is the current one."""
    for one in shelf.iterdir():
        shutil.copy(one, tmp_path)
    monkeypatch.chdir(tmp_path)
    return knows_its_encoders(fleet)


@pytest.fixture
def shared_studio(shelf, tmp_path, monkeypatch, shared_fleet):
    for one in shelf.iterdir():
        shutil.copy(one, tmp_path)
    monkeypatch.chdir(tmp_path)
    return knows_its_encoders(shared_fleet)


def test_a_transcode_gives_back_what_was_made_with_the_file_in_its_place(shared_studio, tmp_path):
    (tmp_path / "sub").mkdir()

    result = shared_studio.job.transcode("talk.mp4", "sub/talk [1].mp4", preset="h264-small")
    made = result.get(timeout=60)

    output = tmp_path / "sub" / "talk [1].mp4"
    assert made["output"] == str(output)
    assert made["size"] == output.stat().st_size
    assert films.probe(output).startswith("2")
    assert result.record.state == "succeeded"
    assert not films.drafts(output.parent)


def test_options_as_the_first_readers_wrote_them_still_work(shared_studio, tmp_path):
    made = shared_studio.job.transcode(
        "talk.mp4", "o.mp4", options="-c:v libx264 -crf 23 -vf 'scale=80:-2'"
    ).get(timeout=60)

    assert made["encoder"] == "libx264"
    assert made["streams"][0]["width"] == 80


def test_files_of_the_host_stay_there(shared_studio, tmp_path):
    result = shared_studio.job.transcode(
        f"here:{tmp_path}/talk.mp4", f":{tmp_path}/there.mp4", options="-c copy"
    )

    assert result.get(timeout=60)["output"] == str(tmp_path / "there.mp4")
    assert result.record.spec.files_in == result.record.spec.files_out == ()
    assert result.record.spec.host == "here"


def test_the_celery_task_of_that_name_submits_one(shared_studio, tmp_path):
    code = (
        "from relayq.tasks import transcode; "
        f"print(transcode.delay('{tmp_path}/talk.mp4', '{tmp_path}/c.mp3', '-vn').id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr

    made = shared_studio.job.fetch(done.stdout.strip()).get(timeout=60)

    assert made["output"] == str(tmp_path / "c.mp3")
    assert made["encoder"] == "mp3"


def test_a_url_is_read_as_it_comes(shared_studio, tmp_path):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.func.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/talk.mp4"
        made = shared_studio.job.transcode(url, "o.mp3", preset="mp3").get(timeout=60)
        server.shutdown()

    assert made["streams"][0]["codec"] == "mp3"
    assert (tmp_path / "o.mp3").exists()


@pytest.mark.parametrize(
    ("inputs", "output", "asked", "says"),
    [
        ("none.mp4", "o.mp4", {}, "no such file"),
        ("talk.mp4", "there.mp4", {}, "exists"),
        ("talk.mp4", "./talk.mp4", {}, "its own input"),
        ("talk.mp4", "o.mp4", {"preset": "h246"}, "no such preset"),
        ("talk.mp4", "o.mp4", {"options": "-c:v libx264 o2.mp4"}, "belongs to no option"),
        ("talk.mp4", "o", {}, "no ending"),
        ("talk.mp4", ".", {}, "directory"),
        ("mini:a.mp4", "pi4:b.mp4", {}, "two hosts"),
        ("mini:a.mp4", "o.mp4", {"host": "pi4"}, "its files are on mini"),
        ([], "o.mp4", {}, "no input"),
        ("talk.mp4", "o.mp4", {"options": "-c:v h264_rkmpp"}, "lacks encoder:h264_rkmpp"),
    ],
)
def test_what_can_be_seen_to_be_wrong_is_never_queued(
    shared_studio, tmp_path, inputs, output, asked, says
):
    (tmp_path / "there.mp4").write_text("mine")
    before = len(shared_studio.job.list())

    with pytest.raises(RelayqError, match=says):
        shared_studio.job.transcode(inputs, output, **asked)

    assert len(shared_studio.job.list()) == before
    assert (tmp_path / "there.mp4").read_text() == "mine"


def test_a_failed_one_says_why_and_leaves_nothing(shared_studio, tmp_path):
    films.cut(tmp_path / "talk.mp4", tmp_path / "cut.mp4")

    with pytest.raises(JobFailed, match="couldn't be read to its end"):
        shared_studio.job.transcode("cut.mp4", "o.mp4").get(timeout=60)

    assert not (tmp_path / "o.mp4").exists()
    assert not films.drafts(tmp_path)


def test_many_files_are_a_job_each_with_one_command(shared_studio, tmp_path):
    for name in ("a.mp4", "b c.mp4"):
        shutil.copy(tmp_path / "talk.mp4", tmp_path / name)
    (tmp_path / "bad.mp4").write_text("this is no film")

    done = relayq("transcode", "a.mp4", "b c.mp4", "bad.mp4", "--to", "small", "-p", "m4a")
    again = relayq("transcode", "a.mp4", "b c.mp4", "--to", "small", "-p", "m4a", "--json")
    rest = relayq("transcode", "a.mp4", "talk.mp4", "--to", "small", "-p", "m4a", "--skip-existing")

    assert done.returncode == 1
    assert sorted(done.stdout.splitlines()) == ["small/a.m4a", "small/b c.m4a"]
    assert "bad.mp4 is no video or sound" in done.stderr
    assert "3 jobs queued" in done.stderr
    assert again.returncode == 125
    assert "exists" in json.loads(again.stdout)["error"]["message"]
    assert rest.returncode == 0, rest.stderr
    assert rest.stdout == "small/talk.m4a\n"


def test_the_command_streams_what_ffmpeg_says_and_names_the_output(shared_studio):
    done = relayq("transcode", "talk.mp4", "o.mkv", "--", "-vf", "scale=80:-2", "-c:a", "copy")
    as_json = relayq("transcode", "talk.mp4", "p.mkv", "--options", "-c copy", "--json")
    refused = relayq("transcode", "talk.mp4", "o.mkv")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "o.mkv\n"
    assert "o.mkv: 2.0 s, h264 80x60, aac" in done.stderr
    assert json.loads(as_json.stdout)["result"]["encoder"] == "copy"
    assert refused.returncode == 125
    assert "hint: to replace it: --overwrite" in refused.stderr


def in_the_middle(studio, output="o.mp4"):
    result = studio.job.transcode("long.mp4", output, **SLOWLY)
    until(
        lambda: (told := result.record.progress) is not None and (told.fraction or 0) > 0,
        within=30,
        what="some progress",
    )
    return result


def ffmpegs() -> list[psutil.Process]:
    """Return the ffmpegs of this test's jobs."""
    home = os.environ["RELAYQ_HOME"]
    found = []
    for one in psutil.process_iter(["name", "cwd"]):
        if one.info["name"] == "ffmpeg" and str(one.info["cwd"]).startswith(home):
            found.append(one)
    return found


def test_a_cancel_in_the_middle_leaves_no_ffmpeg_and_no_part_of_an_output(shared_studio, tmp_path):
    result = in_the_middle(shared_studio)
    assert ffmpegs()

    result.cancel()
    record = result.wait(20)

    assert record.state == "cancelled"
    assert not ffmpegs()
    assert not (tmp_path / "o.mp4").exists()
    assert not films.drafts(tmp_path)


def test_a_cancel_leaves_nothing_beside_an_output_on_the_host_either(shared_studio, tmp_path):
    result = in_the_middle(shared_studio, f":{tmp_path}/o.mp4")
    assert films.drafts(tmp_path)

    result.cancel()
    result.wait(20)

    until(lambda: not ffmpegs(), within=5, what="ffmpeg to end")
    assert not (tmp_path / "o.mp4").exists()
    assert not films.drafts(tmp_path)


def test_its_runner_killed_leaves_no_part_of_an_output(shared_studio, tmp_path):
    result = in_the_middle(shared_studio, f":{tmp_path}/o.mp4")
    [working] = ffmpegs()

    working.parent().send_signal(signal.SIGKILL)
    record = result.wait(20)

    assert record.state == "failed"
    assert record.reason == "signal"
    assert not ffmpegs()
    assert not (tmp_path / "o.mp4").exists()
    assert not films.drafts(tmp_path)


def test_a_worker_killed_in_the_middle_costs_nothing_and_progress_goes_on(studio, tmp_path):
    result = in_the_middle(studio)
    before = result.record.progress

    studio.end_worker(signal.SIGKILL)
    studio.start_worker()

    until(
        lambda: (
            result.ready()
            or ((now := result.record.progress) is not None and now.fraction > before.fraction)
        ),
        within=30,
        what="progress after the restart",
    )
    made = result.get(timeout=100)
    assert made["duration"] == pytest.approx(20, abs=0.5)
    assert result.record.attempt == 1
    assert films.probe(tmp_path / "o.mp4").startswith("20")


def test_without_ffmpeg_on_any_host_it_is_refused_with_what_each_lacks(studio, tmp_path):
    studio.end_worker()
    studio.start_worker(PATH=os.path.dirname(sys.executable))

    def refused() -> bool:
        try:
            studio.job.plan("transcode", inputs="in/talk.mp4", output="o.mp4")
        except Unplaceable as error:
            return "here lacks ffmpeg" in str(error)
        return False

    until(refused, within=20, what="the worker's ffmpeg to be forgotten")
    with pytest.raises(Unplaceable, match="lacks ffmpeg"):
        studio.job.transcode("talk.mp4", "o.mp4")


def test_a_film_goes_to_a_host_that_shares_nothing_and_comes_back(
    home, tmp_path, monkeypatch, shelf
):
    here = tmp_path / "here"
    here.mkdir()
    shutil.copy(shelf / "long.mp4", here)
    monkeypatch.chdir(here)
    for studio in start_apart(home, tmp_path / "there", monkeypatch):
        studio.start_service()
        knows_its_encoders(studio)

        result = studio.job.transcode("long.mp4", "small/o.mp4", "-c:v libx264 -qp 0")
        made = result.get(timeout=100)

        assert made["output"] == str(here / "small" / "o.mp4")
        assert (here / "small" / "o.mp4").stat().st_size == made["size"]
        assert films.probe(here / "small" / "o.mp4").startswith("20")
        assert [kept.place for kept in result.files] == ["service"]
        assert os.listdir(here / "small") == ["o.mp4"]
