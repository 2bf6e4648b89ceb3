"""How far a job says it is: what it may say, how it says it, and how that gets to the broker."""

from __future__ import annotations

import json
import os
import random
import threading
from types import SimpleNamespace

import pytest

from relayq.errors import BrokerUnavailable
from relayq.host import gauges, progress
from relayq.host.gauges import Gauge
from relayq.host.progress import read, tell
from relayq.model.jobs import Token
from relayq.model.progress import LONGEST_TEXT, Progress, fraction_of, total

# What may be said


@pytest.mark.parametrize(
    ("text", "fraction"),
    [
        *[("42%", 0.42), ("0%", 0.0), ("100%", 1.0), (" 12.5 % ", 0.125), ("0.42", 0.42)],
        *[("0", 0.0), ("1", 1.0), ("1.0", 1.0), ("21/50", 0.42), ("0/7", 0.0), ("7/7", 1.0)],
    ],
)
def test_a_fraction_can_be_said_in_three_ways(text, fraction):
    assert fraction_of(text) == pytest.approx(fraction)


@pytest.mark.parametrize(
    "text", ["", "%", "42", "101%", "-1%", "nan", "inf", "5/0", "8/7", "half", "1/2/3", "1e400"]
)
def test_what_is_no_fraction_is_refused(text):
    with pytest.raises(ValueError, match="expected 0% to 100%"):
        fraction_of(text)


def test_it_survives_the_way_as_json():
    for said in (Progress(0.5), Progress(None, "waits"), Progress(1.0, "x", 3.0, "2x", 17.0)):
        assert Progress.from_dict(json.loads(json.dumps(said.as_dict()))) == said


@pytest.mark.parametrize(
    "raw",
    [
        *[{}, {"fraction": None}, {"fraction": "0.5"}, {"text": 7}, {"fraction": 10**400}],
        *[{"fraction": True}, {"fraction": float("nan")}, {"eta": -1}, {"eta": 1e300}],
    ],
)
def test_nonsense_says_nothing(raw):
    assert Progress.from_dict(raw).is_empty


@pytest.mark.parametrize("raw", [None, 5, "half", [], True])
def test_what_is_no_object_isnt_read(raw):
    assert Progress.from_dict(raw) is None


def test_what_is_too_much_is_cut():
    said = Progress.from_dict(
        {"fraction": 7, "text": "a\n\tb " + "c" * 999, "rate": "x" * 99, "colour": "red"}
    )

    assert said.fraction == 1.0
    assert said.text.startswith("a b cc")
    assert (len(said.text), len(said.rate)) == (LONGEST_TEXT, 40)


def test_what_is_left_shrinks_until_it_was_wrong():
    said = Progress(0.5, eta=90.0, at=1000.0)

    assert (said.left(1000.0), said.left(1030.0), said.left(990.0)) == (90.0, 60.0, 90.0)
    assert said.left(1091.0) is None
    assert Progress(0.5).left(0.0) is None


def test_several_jobs_are_as_far_as_their_mean():
    assert total([]) is None
    assert total([None, Progress(None, "waits")]) is None
    assert total([Progress(0.5), None]) == 0.25
    assert total([Progress(0.5)], done=1) == 0.75
    assert total([None], done=3) == 0.75


# How a job says it


@pytest.fixture
def desk(tmp_path):
    return tmp_path / "desk"


@pytest.fixture
def environ(desk):
    return {"RELAYQ_DESK": str(desk)}


@pytest.fixture
def said(desk):
    return lambda: read(str(desk / "progress.json"))


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still; also for what a file system would say."""
    at = [1000.0]
    monkeypatch.setattr(progress.clock, "now", lambda: at[0])
    real = os.replace

    def replaced(draft, path):
        os.utime(draft, (at[0], at[0]))
        real(draft, path)

    monkeypatch.setattr(progress.os, "replace", replaced)
    return at


def test_what_is_told_lies_on_the_desk_and_nothing_else(environ, desk, said):
    tell(environ, Progress(0.25, "first pass"))

    assert said() == Progress(0.25, "first pass")
    assert os.listdir(desk) == ["progress.json"]
    assert desk.stat().st_mode & 0o777 == 0o700


def test_it_is_told_at_most_four_times_a_second(environ, said, now):
    tell(environ, Progress(0.1))
    tell(environ, Progress(0.2))
    assert said().fraction == 0.1

    now[0] += 0.3
    tell(environ, Progress(0.3))
    assert said().fraction == 0.3
    # A clock that was set back silences nobody.
    now[0] -= 3600
    tell(environ, Progress(0.4))
    assert said().fraction == 0.4


def test_the_end_and_what_is_urgent_are_always_told(environ, said, now):
    tell(environ, Progress(0.1))
    tell(environ, Progress(0.2, "another pass"), at_once=True)
    assert said().text == "another pass"
    tell(environ, Progress(1.0))
    assert said().fraction == 1.0


def test_outside_a_job_nobody_is_told():
    tell({}, Progress(0.5))


def test_a_disk_without_room_costs_nothing_but_what_was_said(environ, desk, said, monkeypatch):
    tell(environ, Progress(0.1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress.os, "write", full)
    tell(environ, Progress(0.2), at_once=True)

    assert said().fraction == 0.1
    assert os.listdir(desk) == ["progress.json"]


def test_a_reader_never_sees_half_of_it(environ, said):
    tell(environ, Progress(0.5, "x"), at_once=True)
    is_over = threading.Event()

    def write():
        chance = random.Random(1)
        while not is_over.is_set():
            tell(environ, Progress(0.5, "x" * chance.randrange(1, 200)), at_once=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(500):
            assert said() is not None
    finally:
        is_over.set()
        writer.join()


@pytest.mark.parametrize("raw", [b"", b"{", b"[" * 5000, b'{"fraction": 0.5, "text": "\xff"}'])
def test_a_file_that_isnt_one_of_ours_says_nothing(desk, said, raw):
    desk.mkdir()
    (desk / "progress.json").write_bytes(raw)

    assert said() is None


def test_what_isnt_a_file_says_nothing_and_holds_up_nobody(desk, said):
    desk.mkdir()
    os.mkfifo(desk / "progress.json")
    assert said() is None
    (desk / "progress.json").unlink()
    (desk / "progress.json").mkdir()
    assert said() is None


# How it gets to the broker


class Broker:
    """The store's part, of one attempt."""

    def __init__(self):
        self.noted = []
        self.is_away = False

    def note(self, token, said):
        if self.is_away:
            raise BrokerUnavailable("away")
        self.noted.append(said.fraction)
        return "noted"


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def gauge(broker, tmp_path):
    attempt = SimpleNamespace(token=Token("j1", 2, "u"), directory=tmp_path)
    return Gauge(SimpleNamespace(progress=broker), attempt)


@pytest.fixture
def seconds(monkeypatch):
    """The boot clock, to advance."""
    at = [50.0]
    monkeypatch.setattr(gauges.clock, "boottime", lambda: at[0])
    return at


def test_what_is_new_is_brought_once_and_at_most_once_a_second(gauge, broker, environ, seconds):
    gauge.look()
    seconds[0] += 1
    for fraction in (0.1, 0.2, 0.3):
        tell(environ, Progress(fraction), at_once=True)
        gauge.look()
    assert broker.noted == [0.1]

    for _ in range(3):
        seconds[0] += 1
        gauge.look()
    assert broker.noted == [0.1, 0.3]


def test_a_broker_that_was_away_is_told_when_it_is_back(gauge, broker, environ, seconds):
    tell(environ, Progress(0.4))
    broker.is_away = True
    gauge.look()
    broker.is_away = False
    seconds[0] += 1

    gauge.look()

    assert broker.noted == [0.4]


def test_nonsense_is_read_once(gauge, broker, desk, seconds, monkeypatch):
    desk.mkdir()
    (desk / "progress.json").write_text("nonsense")
    reads = []
    monkeypatch.setattr(gauges.progress, "read", lambda path: reads.append(path))

    for _ in range(3):
        gauge.look()
        seconds[0] += 1

    assert (len(reads), broker.noted) == (1, [])


def test_a_secret_is_hidden_in_what_is_said(tmp_path):
    environ = {"RELAYQ_DESK": str(tmp_path), "RELAYQ_SECRETS": "KEY", "KEY": "of-mine-alone"}

    tell(environ, Progress(0.5, "now of-mine-alone", rate="of-mine-alone/s"))

    said = read(str(tmp_path / "progress.json"))
    assert said is not None
    assert (said.text, said.rate) == ("now ***", "***/s")
