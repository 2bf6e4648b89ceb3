"""What an attempt leaves: written whole, brought once, and never the job's ruin."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from relayq.errors import BrokerFull, BrokerUnavailable, RelayqError
from relayq.host import checkpoints
from relayq.host.attempts import ClaimNote
from relayq.host.checkpoints import LARGEST, Checkpoints, read, write
from relayq.host.delivery import Attempt
from relayq.model.jobs import Token
from relayq.signing import Signer

SIGNER = Signer(b"the fleet's key, as it is in tests")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "checkpoint"


@pytest.fixture
def attempt(tmp_path):
    return Attempt(Token("j1", 1, "u"), ClaimNote(b"", 0, 0), tmp_path)


class Broker:
    """Keeps what it is given, unless it is to raise."""

    def __init__(self):
        self.kept = []
        self.error = None
        self.checkpoints = self

    def keep(self, token, content):
        if self.error is not None:
            raise self.error
        read = SIGNER.check_note(content, name=f"checkpoint {token.id}") if content else b""
        self.kept.append(read)
        return "kept"


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def brings(broker):
    return Checkpoints(broker, SIGNER)


@pytest.fixture
def now(monkeypatch):
    at = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(checkpoints.clock, "boottime", lambda: at.now)
    return at


def test_what_is_written_is_there_whole_and_for_nobody_else(file):
    write(str(file), b"a" * LARGEST)
    write(str(file), b"2\n")

    assert read(str(file)) == b"2\n"
    assert os.listdir(file.parent) == ["checkpoint"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_too_much_is_refused_and_what_was_there_stays(file):
    write(str(file), b"1")

    with pytest.raises(RelayqError, match="at most 256 KiB"):
        write(str(file), b"a" * (LARGEST + 1))

    assert read(str(file)) == b"1"


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)]
)
def test_what_is_no_file_holds_nothing_and_nobody_waits_for_it(file, make):
    make(file)

    assert read(str(file)) is None


def test_what_is_new_is_brought_once_and_at_most_once_a_second(brings, broker, attempt, file, now):
    brings.look(attempt)
    now.now += 1
    write(str(file), b"1")
    brings.look(attempt)
    write(str(file), b"2")
    brings.look(attempt)
    assert broker.kept == [b"1"]

    for _ in range(3):
        now.now += 1
        brings.look(attempt)

    assert broker.kept == [b"1", b"2"]
    write(str(file), b"")
    brings.bring(attempt)
    assert broker.kept == [b"1", b"2", b""]


def test_without_a_broker_it_is_tried_again_and_the_end_waits(brings, broker, attempt, file, now):
    write(str(file), b"1")
    broker.error = BrokerUnavailable("away")
    brings.look(attempt)
    with pytest.raises(BrokerUnavailable):
        brings.bring(attempt)

    broker.error = None
    brings.bring(attempt)

    assert broker.kept == [b"1"]


def test_a_broker_without_room_costs_the_checkpoint_and_not_the_end(
    brings, broker, attempt, file, caplog
):
    write(str(file), b"1")
    broker.error = BrokerFull("no memory")

    brings.bring(attempt)

    assert "the checkpoint of j1 isn't kept: no memory" in caplog.text


def test_a_larger_file_isnt_brought_and_the_log_says_so_once(brings, broker, attempt, file, caplog):
    file.write_bytes(b"a" * (LARGEST + 1))

    brings.bring(attempt)
    brings.bring(attempt)

    assert broker.kept == []
    assert caplog.text.count("isn't kept: it has more than 256 KiB") == 1


def test_what_is_no_file_takes_nothing_back(brings, broker, attempt, file):
    file.mkdir()

    brings.bring(attempt)

    assert broker.kept == []
