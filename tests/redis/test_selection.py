"""Finding jobs as people name them: the last ones, names, groups, prefixes and filters."""

import pytest

from relayq.errors import AmbiguousId, NoSuchJob
from relayq.model.jobs import JobState
from tests.redis.fleet import spec
from tests.redis.scenes import reach


@pytest.fixture
def select(store):
    """Return the ids that some selectors name."""
    return lambda *texts: store.lookup.select(texts)


@pytest.fixture
def passing(store):
    """Return the ids of the jobs that pass some filters."""
    return lambda **filters: store.lookup.all(filters)


def test_the_last_ones_are_those_that_were_submitted_last(fleet, select):
    ids = fleet.submit_all([spec() for _ in range(3)]) + [fleet.submit()]

    assert select("last") == ids[-1:]
    assert select("last~1", "last~3") == [ids[2], ids[0]]


def test_the_last_one_is_the_last_that_is_still_known(fleet, store, select):
    first, last = fleet.submit(), reach(fleet, JobState.FAILED, priority=9)
    assert select("last") == [last]

    store.jobs.forget([last])

    assert select("last") == [first]


def test_no_last_one_was_submitted(fleet, select):
    with pytest.raises(NoSuchJob):
        select("last")
    fleet.submit()
    with pytest.raises(NoSuchJob, match="no job was submitted so long ago"):
        select("last~1")


@pytest.mark.parametrize("connection", ["redis7"], indirect=True)
def test_a_thousand_last_ones_are_remembered(fleet, store, select):
    ids = fleet.submit_all([spec() for _ in range(1500)])

    assert select("last~999") == [ids[500]]
    with pytest.raises(NoSuchJob):
        select("last~1000")
    assert store.connection.llen(fleet.key("recent")) == 1000


def test_a_name_is_its_newest_job(fleet, store, select):
    older, newer = fleet.submit_all([spec(name="nightly build"), spec(name="nightly build")])

    assert select("nightly build") == [newer]

    fleet.cancel(newer)
    store.jobs.forget([newer])
    assert select("nightly build") == [older]


def test_a_group_is_all_its_jobs_in_the_order_of_their_submission(fleet, select):
    ids = fleet.submit_all([spec(group="films") for _ in range(12)])
    ids += [fleet.submit(group="films")]
    fleet.submit(group="songs")

    assert select("@films") == ids
    assert select("films[2-4]") == ids[1:4]
    assert select("@films[12-99]") == ids[11:]
    assert select("films[1]", "films[13]") == [ids[0], ids[12]]


def test_a_job_keeps_its_number_in_the_group_when_others_go(fleet, store, select):
    ids = fleet.submit_all([spec(group="films") for _ in range(3)])
    fleet.cancel(ids[0])
    store.jobs.forget([ids[0]])

    assert select("films[2]") == [ids[1]]
    with pytest.raises(NoSuchJob, match=r"no such jobs: films\[1\]"):
        select("films[1]")


@pytest.mark.parametrize("text", ["@films", "films[1]", "films", "", "last~7", "zzzz"])
def test_a_selector_without_a_job_is_an_error(fleet, select, text):
    fleet.submit()

    with pytest.raises(NoSuchJob, match="no "):
        select(text)


def test_an_id_needs_four_letters(fleet, select):
    fleet.submit(id="abc100000000")

    assert select("abc1") == select(" ABCI ") == select("abc100000000") == ["abc100000000"]
    with pytest.raises(NoSuchJob, match=r"no such job: abc \(an id needs 4 letters\)"):
        select("abc")


def test_a_prefix_of_several_jobs_names_them(fleet, select):
    fleet.submit(id="abcd00000000")
    fleet.submit(id="abcd10000000")

    with pytest.raises(AmbiguousId) as caught:
        select("abcd")

    assert caught.value.matches == ["abcd00000000", "abcd10000000"]


def test_a_name_that_begins_another_jobs_id_is_ambiguous(fleet, select):
    named = fleet.submit(name="cafe")
    fleet.submit(id="cafe00000000")

    with pytest.raises(AmbiguousId) as caught:
        select("cafe")
    assert caught.value.matches == [named, "cafe00000000"]

    fleet.submit(id="cafe10000000")
    with pytest.raises(AmbiguousId) as caught:
        select("cafe")
    assert caught.value.matches == [named, "cafe00000000", "cafe10000000"]


def test_a_name_that_begins_the_jobs_own_id_is_that_job(fleet, select):
    fleet.submit(id="cafe00000000", name="cafe")

    assert select("cafe") == ["cafe00000000"]


def test_a_whole_id_is_that_job_whatever_others_are_named(fleet, select):
    id = fleet.submit()
    fleet.submit(name=id)

    assert select(id) == [id]


def test_each_job_is_selected_once(fleet, select):
    ids = fleet.submit_all([spec(group="films", name="up"), spec(group="films")])

    assert select("last", "@films", "up", ids[0]) == [ids[1], ids[0]]
    assert select() == []


# Filters


def test_all_jobs_come_with_the_newest_first(fleet, store):
    ids = []
    for _ in range(4):
        ids.append(fleet.submit())
        fleet.clock.advance(1)

    assert store.lookup.all({}) == ids[::-1]


@pytest.mark.parametrize("state", list(JobState))
def test_a_state_is_a_filter(fleet, passing, state):
    id = reach(fleet, state)

    assert id in passing(state=state)
    assert all(fleet.state(other) is state for other in passing(state=state))


def test_a_host_is_a_filter(fleet, passing):
    ran = fleet.host("pi4").run(fleet.submit()).id
    waits, elsewhere = fleet.submit(host="pi4"), fleet.submit(host="mini")
    fleet.submit()

    assert set(passing(host="pi4")) == {ran, waits}
    assert set(passing(host="pi*")) == {ran, waits}
    assert set(passing(host="*")) == {ran, waits, elsewhere}


def test_what_the_submitter_said_is_a_filter(fleet, passing):
    one = fleet.submit(
        name="encode up", labels=("media", "night"), meta={"film": "Up"}, group="films"
    )
    other = fleet.submit(name="encode", labels=("media",), kind="transcode")

    assert passing(name="encode") == [other]
    assert set(passing(name="encode*")) == {one, other}
    assert set(passing(label="media")) == {one, other}
    assert passing(label="n*") == [one]
    assert passing(group="films") == passing(group="f*") == [one]
    assert passing(kind="transcode") == [other]
    assert passing(**{"meta.film": "*p"}) == [one]
    assert passing(name="encode*", label="night", state="queued") == [one]
    assert passing(name="encode", label="night") == []
    assert passing(group="songs") == []


def test_filters_narrow_what_was_selected(fleet, store):
    ids = fleet.submit_all([spec(group="films", labels=("a",)), spec(group="films")])

    assert store.lookup.narrow(ids, {}) == ids
    assert store.lookup.narrow(ids, {"label": "a"}) == ids[:1]


@pytest.mark.parametrize("connection", ["redis7"], indirect=True)
def test_many_whole_ids_cost_one_round_trip(fleet, store, select):
    ids = fleet.submit_all([spec() for _ in range(300)])
    before = store.connection.info("stats")["total_commands_processed"]

    assert select(*ids) == ids

    assert store.connection.info("stats")["total_commands_processed"] - before <= 3
