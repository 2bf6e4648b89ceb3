"""Where a job may run, and which host is chosen for it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.errors import RelayqError, Unplaceable
from relayq.model.hosts import Host
from relayq.model.placement import (
    LONGEST_QUEUE,
    OVERFLOW,
    Constraints,
    HostFacts,
    Placement,
    able,
    constrain,
    constraints_of,
    facts_of,
    lacks,
    place,
    queue_of,
    serves,
)
from relayq.model.strategies import Strategy

MINI = HostFacts(
    "mini",
    aliases=("mac",),
    labels=frozenset({"heavy"}),
    capabilities=frozenset({"ffmpeg", "transcribe:faster-whisper", "kind:transcode"}),
    resources={"cuda": 2, "memory_bytes": 16_000_000_000},
)
PI = HostFacts("pi4", labels=frozenset({"light"}), capabilities=frozenset({"ffmpeg"}))
NAS = HostFacts("nas")

#: Few words, so that constraints and hosts often meet.
NAMES = ["mini", "pi4", "pi5", "nas", "mac"]
LABELS = ["heavy", "light", "home"]
CAPABILITIES = ["ffmpeg", "whisper", "whisper:large", "build.ios", "kind:transcode", "c++", "on"]
RESOURCES = ["cuda", "gpu", "memory_bytes"]
PLACES = [*NAMES, "pi*", "*i*", *(f"@{label}" for label in LABELS), "@h*"]

constraints = st.builds(
    constrain,
    on=st.lists(st.sampled_from(PLACES), max_size=3),
    needs=st.lists(st.sampled_from([*CAPABILITIES, "@heavy", "kind:run_command"]), max_size=3),
    excluded=st.lists(st.sampled_from(PLACES), max_size=2),
    prefer=st.none() | st.sampled_from(NAMES),
    overflow=st.none() | st.floats(0, 1000),
    resources=st.dictionaries(st.sampled_from(RESOURCES), st.integers(1, 3)),
)
host_facts = st.builds(
    HostFacts,
    name=st.sampled_from(NAMES[:-1]),
    aliases=st.sampled_from([(), ("mac",)]),
    labels=st.frozensets(st.sampled_from(LABELS)),
    capabilities=st.frozensets(st.sampled_from(CAPABILITIES)),
    resources=st.dictionaries(st.sampled_from(RESOURCES), st.integers(0, 3)),
    weight=st.floats(0, 10),
    load=st.floats(0, 5),
    is_available=st.booleans(),
)
fleets = st.lists(host_facts, max_size=5, unique_by=lambda host: host.name)
chances = st.floats(0, 1, exclude_max=True)


def fleet(*loads: float, **options) -> list[HostFacts]:
    return [HostFacts(f"h{i}", load=load, **options) for i, load in enumerate(loads)]


@pytest.mark.parametrize(
    ("asked", "queue"),
    [
        ({}, "any"),
        ({"on": "any"}, "any"),
        ({"on": "pi4,*"}, "any"),
        ({"on": "pi4"}, "host.pi4"),
        ({"on": ["PI4 "]}, "host.pi4"),
        ({"on": "pi*"}, "needs.on=pi*"),
        ({"on": "@heavy"}, "needs.on=@heavy"),
        ({"on": ["mini", "mac*,mini"]}, "needs.on=mac*|mini"),
        ({"needs": "whisper,ffmpeg"}, "needs.ffmpeg,whisper"),
        ({"needs": "kind:run_command"}, "any"),
        ({"on": "pi4", "needs": "ffmpeg"}, "needs.ffmpeg,on=pi4"),
        ({"excluded": "pi4"}, "needs.!pi4"),
        ({"resources": {"gpu": 1, "cuda": 2}}, "needs.cuda=2,gpu=1"),
        ({"prefer": "mini", "overflow": 5.0}, "any"),
        (
            {"on": "mini,mac*", "needs": "ffmpeg,@heavy", "excluded": "pi4"},
            "needs.@heavy,ffmpeg,!pi4,on=mac*|mini",
        ),
    ],
)
def test_constraints_are_a_queue(asked, queue):
    assert queue_of(constrain(**asked)) == queue
    assert queue_of(constraints_of(queue)) == queue


@given(constraints)
def test_a_queue_says_all_that_its_jobs_ask_of_a_host(asked):
    read = constraints_of(queue_of(asked))

    assert (read.on, read.needs, read.excluded) == (asked.on, asked.needs, asked.excluded)
    assert read.resources == asked.resources
    assert (read.prefer, read.overflow) == (None, None)


@given(st.permutations(["a", "b", "c"]), st.permutations(["x", "y"]))
def test_the_order_and_the_number_of_mentions_make_no_other_queue(needs, on):
    asked = constrain(needs=[*needs, *needs], on=on)

    assert queue_of(asked) == "needs.a,b,c,on=x|y"
    assert queue_of(Constraints(needs=(*needs, *needs), on=(*on, *on))) == queue_of(asked)


@given(constraints)
def test_the_name_of_a_queue_is_short_and_printable(asked):
    queue = queue_of(asked)

    assert queue.isascii()
    assert queue.isprintable()
    assert " " not in queue
    assert len(queue) <= LONGEST_QUEUE


@pytest.mark.parametrize(
    "queue",
    [
        "",
        "anything",
        "any.",
        "host.",
        "host.pi*",
        "host.Pi4",
        "needs",
        "needs.",
        "needs.b,a",
        "needs.a,a",
        "needs.a,,b",
        "needs.on=pi4",
        "needs.on=",
        "needs.on=b|a",
        "needs.on=a,on=b",
        "needs.!",
        "needs.!b,!a",
        "needs.cuda=0",
        "needs.cuda=1,cuda=2",
        "needs.cuda=01",
        "needs.on=pi4,ffmpeg",
        "needs.python>=3.11",
        "needs.a b",
        "needs.a\n",
        "later.a",
    ],
)
def test_a_queue_that_nobody_makes_is_served_by_nobody(queue):
    with pytest.raises(ValueError, match="not the name of a queue"):
        constraints_of(queue)

    assert not serves(queue, MINI)


@given(st.text(alphabet="anyhostneds.,=!|@*1 ", max_size=20))
def test_whatever_can_be_read_is_written_alike(text):
    try:
        read = constraints_of(text)
    except ValueError:
        return

    assert queue_of(read) == text


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"on": "pi 4"}, "a host can't be 'pi 4'"),
        ({"on": ""}, "a host can't be ''"),
        ({"on": "@"}, "a host can't be '@'"),
        ({"excluded": "!pi4"}, "a host can't be '!pi4'"),
        ({"needs": "python>=3.11"}, "a capability can't be 'python>=3.11'"),
        ({"needs": "a|b"}, "a capability can't be"),
        ({"needs": "cuda=1"}, "a capability can't be"),
        ({"prefer": "pi*"}, "a preferred host is one host's name"),
        ({"prefer": "@heavy"}, "a preferred host can't be '@heavy'"),
        ({"prefer": "mini,nas"}, "one host's name"),
        ({"overflow": -1.0}, "an overflow"),
        ({"overflow": float("nan")}, "an overflow"),
        ({"resources": {"cuda": 0}}, "NAME=N"),
        ({"resources": {"on": 1}}, "NAME=N"),
        ({"resources": {"a b": 1}}, "NAME=N"),
        ({"on": [f"host-number-{n}" for n in range(50)]}, "too many constraints"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_reason(asked, message):
    with pytest.raises(RelayqError, match=message.replace("|", r"\|").replace("*", r"\*")):
        constrain(**asked)


@pytest.mark.parametrize(
    ("asked", "host", "words"),
    [
        ({}, NAS, []),
        ({"on": "mac"}, MINI, []),
        ({"on": "m*"}, MINI, []),
        ({"on": "@heavy"}, MINI, []),
        ({"on": "@he*"}, MINI, []),
        ({"on": "pi*"}, MINI, ["is not pi*"]),
        ({"on": "@light"}, MINI, ["has no label light"]),
        ({"on": "pi*,nas"}, MINI, ["is none of nas, pi*"]),
        ({"excluded": "mac"}, MINI, ["is excluded by mac"]),
        ({"excluded": "@heavy,pi*"}, MINI, ["is excluded by @heavy"]),
        ({"needs": "transcribe"}, MINI, []),
        ({"needs": "transcribe:faster-whisper"}, MINI, []),
        ({"needs": "trans"}, MINI, ["lacks trans"]),
        ({"needs": "@light"}, MINI, ["has no label light"]),
        ({"needs": "kind:transcode"}, MINI, []),
        ({"needs": "kind:transcode"}, PI, ["runs no transcode"]),
        ({"needs": "whisper,claude,ffmpeg"}, PI, ["lacks claude", "lacks whisper"]),
        ({"resources": {"cuda": 2}}, MINI, []),
        ({"resources": {"cuda": 3}}, MINI, ["has 2 of 3 cuda"]),
        ({"resources": {"cuda": 1}}, PI, ["has no cuda"]),
        ({"resources": {"memory_bytes": 32 * 10**9}}, MINI, ["has 16.0 of 32.0 GB memory"]),
        ({"on": "nas", "needs": "x", "resources": {"y": 1}}, PI, ["is not nas", "lacks x"]),
    ],
)
def test_what_a_host_lacks_is_said_in_words(asked, host, words):
    assert lacks(constrain(**asked), host)[: len(words) or None] == words


@given(constraints, host_facts)
def test_a_host_serves_the_queues_of_exactly_the_jobs_for_which_it_lacks_nothing(asked, host):
    assert serves(queue_of(asked), host) == (not lacks(asked, host))


@given(constraints, fleets, st.sampled_from(Strategy), chances, st.integers(0, 10**9))
def test_placement_violates_no_constraint_and_refuses_nothing_possible(
    asked, hosts, strategy, chance, cursor
):
    possible = {host.name for host in hosts if not lacks(asked, host)}
    if not possible and (hosts or queue_of(asked) != "any"):
        with pytest.raises(Unplaceable):
            place(asked, hosts, strategy, randomness=chance, cursor=cursor)
        return

    placed = place(asked, hosts, strategy, randomness=chance, cursor=cursor)

    served = {host.name for host in hosts if serves(placed.queue, host)}
    assert served <= possible
    assert served or not hosts
    assert placed.host is None or placed.host in served
    if placed.wide is not None:
        assert {host.name for host in hosts if serves(placed.wide, host)} == possible
        assert placed.overflow is not None


@given(constraints, fleets, st.sampled_from(Strategy), chances)
def test_no_host_that_takes_no_work_is_chosen_early(asked, hosts, strategy, chance):
    try:
        placed = place(asked, hosts, strategy, randomness=chance)
    except Unplaceable:
        return

    if placed.host is not None:
        assert next(host for host in hosts if host.name == placed.host).is_available
    else:
        assert placed == Placement(queue_of(asked))


def test_a_job_that_asks_for_nothing_is_queued_before_there_is_any_host():
    assert place(Constraints(), []) == Placement("any")

    with pytest.raises(Unplaceable, match="none is known yet"):
        place(constrain(needs="ffmpeg"), [])


def test_a_job_that_no_host_could_take_is_refused_with_what_each_lacks():
    said = "it: mini has no label light; nas has no label light and lacks ffmpeg"
    with pytest.raises(Unplaceable, match=said) as caught:
        able(constrain(on="@light", needs="ffmpeg"), [NAS, MINI])

    assert caught.value.missing["nas"] == ["has no label light", "lacks ffmpeg"]


def test_a_refusal_names_only_some_of_many_hosts():
    with pytest.raises(Unplaceable, match="; h2 lacks ffmpeg; 7 more likewise can't$") as caught:
        able(constrain(needs="ffmpeg"), fleet(*[0] * 12))

    assert len(caught.value.missing) == 12


def test_a_preferred_host_is_waited_for_first():
    placed = place(constrain(prefer="mac", needs="ffmpeg"), [PI, MINI])

    assert placed == Placement("needs.ffmpeg,on=mini", "mini", "needs.ffmpeg", OVERFLOW)


def test_a_host_that_cannot_take_a_job_is_not_preferred():
    assert place(constrain(prefer="nas", needs="ffmpeg"), [PI, MINI, NAS]).queue == "needs.ffmpeg"
    assert place(constrain(prefer="gone", on="pi4"), [PI]).queue == "host.pi4"


def test_a_preference_comes_before_the_strategy():
    placed = place(constrain(prefer="h1", overflow=3.0), fleet(0, 5), "least-loaded")

    assert placed == Placement("host.h1", "h1", "any", 3.0)


def test_a_job_for_one_host_has_nothing_to_widen_to():
    assert place(constrain(on="pi4"), [PI, MINI], "random") == Placement("host.pi4", "pi4")


def test_pull_chooses_no_host():
    assert place(Constraints(), fleet(0, 1)) == Placement("any")


def test_least_loaded_takes_the_host_with_the_fewest_jobs_and_chance_decides_a_draw():
    hosts = fleet(0.5, 0, 0, 1)

    chosen = {place(Constraints(), hosts, "least-loaded", randomness=r).host for r in (0, 0.9)}

    assert chosen == {"h1", "h2"}


def test_round_robin_takes_one_host_after_the_other():
    hosts = fleet(3, 2, 1)

    chosen = [place(Constraints(), hosts, "round-robin", cursor=n).host for n in range(4)]

    assert chosen == ["h0", "h1", "h2", "h0"]


def test_random_takes_each_host_alike():
    hosts = fleet(0, 9, 9, 0)

    chosen = Counter(
        place(Constraints(), hosts, "random", randomness=n / 100).host for n in range(100)
    )

    assert set(chosen.values()) == {25}


def test_weighted_takes_hosts_by_their_weights():
    hosts = [HostFacts("big", weight=3), HostFacts("small"), HostFacts("never", weight=0)]

    chosen = Counter(
        place(Constraints(), hosts, "weighted", randomness=n / 100).host for n in range(100)
    )

    assert chosen == {"big": 75, "small": 25}


def test_hosts_without_any_weight_are_alike():
    hosts = fleet(0, 0, weight=0)

    assert place(Constraints(), hosts, "weighted", randomness=0.9).host == "h1"


def test_capability_match_spares_the_host_that_can_do_more_as_long_as_another_has_room():
    idle, busy = HostFacts("pi5", capabilities=PI.capabilities), MINI

    asked = constrain(needs="ffmpeg")

    assert place(asked, [busy, idle], "capability-match").host == "pi5"
    full = HostFacts("pi5", capabilities=PI.capabilities, load=1.0)
    assert place(asked, [busy, full], "capability-match").host == "mini"


def test_a_strategy_that_does_not_exist_is_an_error():
    with pytest.raises(RelayqError, match="no such strategy: fastest"):
        place(Constraints(), fleet(0), "fastest")


def test_the_facts_of_a_host_are_read_as_its_worker_publishes_them():
    facts = {
        "memory_bytes": 8_000_000_000,
        "capabilities": ["ffmpeg", "Xcode"],
        "labels": ["Heavy"],
        "aliases": ["mac"],
        "weight": 3,
        "resources": {"cuda": 1},
    }
    host = Host("mini", "i", "b", slots=2, seen_at=0, is_online=True, active=1, facts=facts)

    assert facts_of(host) == HostFacts(
        "mini",
        aliases=("mac",),
        labels=frozenset({"heavy"}),
        capabilities=frozenset({"ffmpeg", "xcode"}),
        resources={"cuda": 1, "memory_bytes": 8_000_000_000},
        weight=3.0,
        load=0.5,
    )


@pytest.mark.parametrize(
    "state",
    [
        {"is_online": False},
        {"drained_at": 1.0},
        {"facts": {"courtesy": {"state": "no_new_work"}}},
        {"facts": {"courtesy": {"state": "frozen"}}},
    ],
)
def test_a_host_that_is_away_drained_or_paused_takes_no_work_now(state):
    fields = {"install": "i", "boot": "b", "slots": 1, "seen_at": 0, "is_online": True}

    assert facts_of(Host("pi4", **fields)).is_available
    assert not facts_of(Host("pi4", **{**fields, **state})).is_available


def test_a_host_that_has_told_nothing_yet_serves_what_asks_for_nothing():
    silent = facts_of(Host("old", "i", "b", slots=0, seen_at=0, is_online=False))

    assert serves("any", silent)
    assert serves("host.old", silent)
    assert not serves("needs.ffmpeg", silent)
    assert not silent.is_available
