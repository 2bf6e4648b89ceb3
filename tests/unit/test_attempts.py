"""What the worker reads of an attempt's directory."""

from __future__ import annotations

import json

from relayq.host import attempts
from relayq.host.attempts import ClaimNote
from relayq.host.facts import job_environment
from relayq.model.jobs import Token
from relayq.model.output import HEADER, STDOUT, frame, split


def write_frames(directory, sizes, torn=b""):
    raw = b"".join(frame(STDOUT, 0.0, b"x" * size) for size in sizes)
    (directory / "output").write_bytes(raw + torn)
    return raw


def test_only_whole_frames_are_read(tmp_path):
    raw = write_frames(tmp_path, [10, 20], torn=frame(STDOUT, 0.0, b"torn")[:-1])

    assert attempts.read_output(tmp_path, 0) == raw


def test_a_large_output_is_read_in_pieces_that_end_with_a_frame(tmp_path):
    raw = write_frames(tmp_path, [60_000] * 20)
    position, pieces = 0, []

    while piece := attempts.read_output(tmp_path, position):
        pieces.append(piece)
        position += len(piece)

    assert b"".join(pieces) == raw
    assert len(pieces) > 1
    assert all(len(split(piece)[0]) for piece in pieces)


def test_reading_stops_at_the_end_that_was_named(tmp_path):
    raw = write_frames(tmp_path, [10, 10, 10])
    first = HEADER.size + 10

    assert attempts.read_output(tmp_path, 0, end=2 * first) == raw[: 2 * first]
    assert attempts.read_output(tmp_path, 0, end=first + 1) == raw[: 2 * first]
    assert attempts.read_output(tmp_path, first, end=first) == b""


def test_a_frame_that_is_larger_than_its_room_is_kept(tmp_path):
    raw = write_frames(tmp_path, [60_000, 60_000])
    first = HEADER.size + 60_000

    assert attempts.read_output(tmp_path, 0, end=1000) == raw[:first]
    assert attempts.tail_position(tmp_path, first, 1000) == first


def test_the_tail_begins_with_a_frame_and_fits_its_room(tmp_path):
    raw = write_frames(tmp_path, [7, 1000, 33, 60_000] * 30)

    start = attempts.tail_position(tmp_path, 0, 200_000)

    assert len(raw) - start <= 200_000
    assert len(raw) - start > 200_000 - 61_000
    assert split(raw[start:])[1] == len(raw) - start


def test_a_small_output_is_all_tail(tmp_path):
    write_frames(tmp_path, [10])

    assert attempts.tail_position(tmp_path, 0, 1000) == 0


def test_a_directory_tells_its_attempt():
    token = Token("3f2a", 2, "abc")

    from pathlib import Path

    assert attempts.token_of(Path("/spool") / attempts.directory_name(token)) == token
    assert attempts.token_of(Path("/spool/worker.lock")) is None


def test_the_last_attempt_of_a_job_is_found(tmp_path):
    for name in ("3f2a.1.aa", "3f2a.10.bb", "3f2a.2.cc", "9999.11.dd"):
        (tmp_path / name).mkdir()

    assert attempts.find(tmp_path, "3f2a") == tmp_path / "3f2a.10.bb"
    assert attempts.find(tmp_path, "3f2a", 2) == tmp_path / "3f2a.2.cc"
    assert attempts.find(tmp_path, "none") is None


def test_a_claim_note_that_was_cut_off_is_no_note(tmp_path):
    note = ClaimNote(b"key mac {}", 2, 1)
    written = json.dumps({"argv": ["true"], "claim": note.as_dict()})
    (tmp_path / "command.json").write_text(written)
    assert ClaimNote.read(tmp_path) == note

    (tmp_path / "command.json").write_text(written[:-20])
    assert ClaimNote.read(tmp_path) is None


def test_a_jobs_environment_is_an_allow_list():
    own = {"HOME": "/h", "LC_ALL": "C", "RELAYQ_BROKER__URL": "secret", "AWS_SECRET": "x"}

    env = job_environment(own, {"ASKED": "1", "HOME": "/other"}, id="3f2a", attempt=2)

    assert env.pop("PATH")
    assert env == {
        "HOME": "/other",
        "LC_ALL": "C",
        "ASKED": "1",
        "RELAYQ_JOB_ID": "3f2a",
        "RELAYQ_ATTEMPT": "2",
    }
