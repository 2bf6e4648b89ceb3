"""Logs: output arrives once and in its place; a follower gets everything while it keeps up."""

import pytest

from relayq.model.jobs import JobState
from relayq.store.logs import ACK_TTL, FOLLOWER_TTL, REPLY_TTL, Piece


@pytest.fixture
def host(fleet):
    return fleet.host()


@pytest.fixture
def token(fleet, host):
    """A running attempt."""
    return host.start(fleet.submit())


def frames(pieces):
    return [(piece.position, piece.frames) for piece in pieces]


def test_pieces_are_kept_by_position(store, token):
    assert store.logs.append(token, 0, b"abc") == "ok"
    assert store.logs.append(token, 3, b"defg") == "ok"

    assert frames(store.logs.read(token.id, 1)) == [(0, b"abc"), (3, b"defg")]
    assert store.logs.appended(token.id) == 7


def test_a_piece_that_is_sent_again_is_skipped(store, token):
    store.logs.append(token, 0, b"abc")
    store.logs.append(token, 3, b"def")

    assert store.logs.append(token, 3, b"def") == "already"
    assert store.logs.append(token, 0, b"abc") == "already"

    assert frames(store.logs.read(token.id, 1)) == [(0, b"abc"), (3, b"def")]


def test_a_gap_shows_in_the_positions(store, token):
    store.logs.append(token, 0, b"head")

    assert store.logs.append(token, 1000, b"tail") == "ok"

    assert frames(store.logs.read(token.id, 1)) == [(0, b"head"), (1000, b"tail")]
    assert store.logs.appended(token.id) == 1004


def test_output_of_an_attempt_that_lost_its_lease_is_refused(fleet, store, host):
    lost = fleet.lose(host, fleet.submit())
    assert store.logs.append(lost, 0, b"stray") == "stale"
    fleet.host("mini").start(lost.id)

    assert store.logs.append(lost, 0, b"stray") == "stale"
    assert store.logs.read(lost.id, 1) == []


def test_output_is_still_taken_while_the_verdict_is_open(fleet, store, token):
    fleet.expire()
    assert fleet.state(token.id) is JobState.LOST

    assert store.logs.append(token, 0, b"abc") == "ok"


def test_each_attempt_has_output_of_its_own(fleet, store, host, token):
    store.logs.append(token, 0, b"first")
    host.finish(token, JobState.FAILED)
    fleet.retry(token.id)
    second = host.start(token.id)

    assert store.logs.append(second, 0, b"second") == "ok"

    assert frames(store.logs.read(token.id, 1)) == [(0, b"first")]
    assert frames(store.logs.read(token.id, 2)) == [(0, b"second")]


def test_bytes_come_back_as_they_were(store, token):
    raw = bytes(range(256)) * 100

    store.logs.append(token, 0, raw)

    assert frames(store.logs.read(token.id, 1)) == [(0, raw)]


# Followers


def test_a_follower_is_known_until_it_unfollows(fleet, store, token):
    store.logs.follow(token.id, "reply-1")
    store.logs.follow(token.id, "reply-2")
    store.logs.send("reply-1", Piece(1, 0, b"abc"))

    store.logs.unfollow(token.id, "reply-1")

    assert store.logs.followers(token.id) == ["reply-2"]
    assert not store.connection.exists(fleet.key("reply", "reply-1"))


def test_what_a_follower_leaves_behind_goes_away_by_itself(fleet, store, token):
    store.logs.follow(token.id, "reply")
    store.logs.ack("reply", 0)
    store.logs.send("reply", Piece(1, 0, b"abc"))

    def ttl(name, suffix):
        return store.connection.ttl(fleet.key(name, suffix))

    assert ttl("followers", token.id) == pytest.approx(FOLLOWER_TTL, abs=2)
    assert ttl("reply", "reply") == pytest.approx(REPLY_TTL, abs=2)
    assert ttl("ack", "reply") == pytest.approx(ACK_TTL, abs=2)


def test_the_next_claim_tells_the_host_who_follows(fleet, store, host):
    id = fleet.submit()
    store.logs.follow(id, "reply")

    claim = host.ask()

    assert claim.replies == ("reply",)


def test_a_follower_receives_pieces_in_order_and_what_it_read_is_dropped(fleet, store, token):
    for position in (0, 3, 6):
        store.logs.send("reply", Piece(1, position, b"abc"))

    first, _, _ = store.logs.receive(token.id, "reply", since=b"0", position=0, patience=0.1)
    store.logs.send("reply", Piece(1, 9, b"xyz"))
    second, _, _ = store.logs.receive(
        token.id, "reply", since=first[-1].entry, position=9, patience=0.1
    )

    assert frames(first) == [(0, b"abc"), (3, b"abc"), (6, b"abc")]
    assert frames(second) == [(9, b"xyz")]
    assert store.connection.xlen(fleet.key("reply", "reply")) <= 2


def test_receiving_says_how_far_the_follower_has_read(store, token):
    assert store.logs.acked("reply") is None

    store.logs.receive(token.id, "reply", since=b"0", position=42, patience=0.001)

    assert store.logs.acked("reply") == 42


def test_the_sender_learns_how_far_the_follower_is_and_when_it_is_gone(fleet, store):
    store.logs.ack("reply", 7)
    assert store.logs.send("reply", Piece(1, 7, b"abc")) == 7

    store.connection.delete(fleet.key("ack", "reply"))

    assert store.logs.send("reply", Piece(1, 10, b"abc")) is None


def test_the_end_of_a_reply_and_its_error_arrive(store, token):
    store.logs.send("reply", Piece(1, 3, b"", end=3, error="the disk was full"))

    pieces, _, _ = store.logs.receive(token.id, "reply", since=b"0", position=0, patience=0.1)

    assert [(piece.end, piece.error) for piece in pieces] == [(3, "the disk was full")]


def test_the_end_of_the_job_wakes_its_follower_with_the_outcome(fleet, store, host, token):
    host.finish(token, output=b"hello")

    pieces, outcome, has_ended = store.logs.receive(
        token.id, "reply", since=b"0", position=0, patience=0.1
    )

    assert (pieces, has_ended) == ([], True)
    assert fleet.signer.check_outcome(outcome, id=token.id).output == b"hello"


def test_a_follower_that_knows_of_the_end_is_not_woken_by_it(store, host, token):
    host.finish(token)

    answer = store.logs.receive(
        token.id, "reply", since=b"0", position=0, patience=0.01, await_end=False
    )

    assert answer == ([], None, False)


def test_a_sender_that_restarts_learns_what_it_sent_last(store):
    assert store.logs.sent("reply") is None
    store.logs.send("reply", Piece(1, 0, b"abc"))
    store.logs.send("reply", Piece(1, 3, b"defg"))

    last = store.logs.sent("reply")

    assert (last.position, last.frames) == (3, b"defg")
