"""Selectors and filters as texts: what each means, and what is refused."""

from dataclasses import replace

import pytest

from relayq.errors import RelayqError
from relayq.model.jobs import JobRecord, JobState, Spec
from relayq.model.selectors import (
    LONGEST_TEXT,
    Group,
    Last,
    Word,
    check_filters,
    check_group,
    check_labels,
    check_meta,
    check_name,
    check_text,
    fits,
    parse,
    passes,
    read_filters,
    states_of,
)

SPEC = Spec(
    "abc100000000",
    "run_command",
    {"cmd": "true"},
    name="encode",
    labels=("media", "night"),
    meta={"film": "Up", "part": "1"},
    group="films",
)
RECORD = JobRecord(
    id="abc100000000",
    kind="run_command",
    state=JobState.RUNNING,
    queue="any",
    priority=5,
    created_at=1_800_000_000.0,
    host="pi4",
    spec=SPEC,
)


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("last", Last()),
        ("last~0", Last(0)),
        (" last~12 ", Last(12)),
        ("@films", Group("films")),
        ("films[1]", Group("films", 1, 1)),
        ("films[2-5]", Group("films", 2, 5)),
        ("@films[2-5]", Group("films", 2, 5)),
        ("g7.a_b-c[10-10]", Group("g7.a_b-c", 10, 10)),
        ("abc1", Word("abc1")),
        ("nightly build", Word("nightly build")),
        ("last~", Word("last~")),
        ("lastly", Word("lastly")),
        ("@", Word("@")),
        ("films[]", Word("films[]")),
        ("films[a-b]", Word("films[a-b]")),
        ("", Word("")),
    ],
)
def test_a_selector_means_one_thing(text, selector):
    assert parse(text) == selector


@pytest.mark.parametrize("text", ["films[0]", "films[0-3]", "films[5-1]"])
def test_a_range_without_jobs_is_refused(text):
    with pytest.raises(RelayqError, match=r"empty range; a group's first job is films\[1\]"):
        parse(text)


@pytest.mark.parametrize(
    "name", ["encode", "nightly build", "a[b]", "3/4", "ü", "x" * LONGEST_TEXT]
)
def test_a_job_may_have_any_name_on_one_line(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["last", "last~3", "@films", "films[1-2]", " padded "])
def test_a_name_that_selects_other_jobs_is_refused(name):
    with pytest.raises(RelayqError, match="selects other jobs"):
        check_name(name)


@pytest.mark.parametrize("name", ["", "two\nlines", "\x1b[31mred", None, 5])
def test_a_name_that_cannot_be_shown_is_refused(name):
    with pytest.raises(RelayqError, match="printable text on one line"):
        check_name(name)


def test_a_text_has_a_greatest_length():
    with pytest.raises(RelayqError, match="at most 200 letters, not 201"):
        check_text("a unique key", "x" * (LONGEST_TEXT + 1))


@pytest.mark.parametrize("group", ["films", "g7", "2026-11-21", "a.b_c"])
def test_a_groups_name_can_be_selected(group):
    assert parse(f"@{check_group(group)}") == Group(group)
    assert parse(f"{group}[1-2]") == Group(group, 1, 2)


@pytest.mark.parametrize("group", ["", "@g", "a b", "a[1]", "-a", "ü", "x" * 201])
def test_a_group_that_cannot_be_selected_is_refused(group):
    with pytest.raises(RelayqError, match="a group's name"):
        check_group(group)


def test_labels_are_kept_once_in_their_order():
    assert check_labels(["b", "a", "b"]) == ("b", "a")


@pytest.mark.parametrize("labels", [["a b"], ["a,b"], [""], ["\n"], "media"])
def test_a_label_that_would_be_two_is_refused(labels):
    with pytest.raises(RelayqError, match="label"):
        check_labels(labels)


def test_meta_is_a_text_for_each_key():
    assert check_meta({"category": "media", "a.b-c": "two\nlines"}) == {
        "category": "media",
        "a.b-c": "two\nlines",
    }
    assert check_meta(None) == {}


@pytest.mark.parametrize("meta", [{"": "x"}, {"a=b": "x"}, {"a b": "x"}, {"a": 1}, {1: "a"}])
def test_other_meta_is_refused(meta):
    with pytest.raises(RelayqError, match="meta"):
        check_meta(meta)


# Filters


@pytest.mark.parametrize(
    ("pattern", "value", "is_fitting"),
    [
        ("abc", "abc", True),
        ("abc", "abcd", False),
        ("a*", "abcd", True),
        ("*d", "abcd", True),
        ("a*c*", "abcd", True),
        ("*", "", True),
        ("*", "two\nlines", True),
        ("a?c", "abc", False),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("A*", "abc", False),
    ],
)
def test_a_star_stands_for_any_text_and_nothing_else_does(pattern, value, is_fitting):
    assert fits(pattern, value) is is_fitting


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"state": "running"},
        {"state": "r*"},
        {"host": "pi*"},
        {"kind": "run_command"},
        {"name": "enc*"},
        {"label": "night"},
        {"group": "films"},
        {"meta.film": "U*"},
        {"state": "running", "host": "pi4", "label": "m*", "meta.part": "1"},
    ],
)
def test_a_record_passes_filters_that_it_fits(filters):
    assert passes(RECORD, filters)


@pytest.mark.parametrize(
    "filters",
    [
        {"state": "queued"},
        {"host": "mini"},
        {"kind": "transcode"},
        {"name": "enc"},
        {"label": "day"},
        {"group": "songs"},
        {"meta.film": "Down"},
        {"meta.year": "*"},
        {"state": "running", "host": "mini"},
    ],
)
def test_a_record_that_fails_one_filter_does_not_pass(filters):
    assert not passes(RECORD, filters)


def test_a_host_filter_is_about_where_a_job_runs_or_is_meant_to():
    queued = replace(RECORD, state=JobState.QUEUED)

    assert passes(replace(queued, queue="host.mini"), {"host": "mini"})
    assert not passes(queued, {"host": "*"})


def test_what_was_not_said_fits_no_filter():
    bare = replace(RECORD, spec=Spec("abc100000000", "run_command", {}))

    for key in ("name", "label", "group", "meta.film"):
        assert not passes(bare, {key: "*"})
        assert not passes(replace(RECORD, spec=None), {key: "*"})


def test_filters_are_read_from_texts():
    assert read_filters([]) == {}
    assert read_filters(["state=failed", "meta.a=b=c"]) == {"state": "failed", "meta.a": "b=c"}


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["state"], "a filter is KEY=VALUE, not 'state'"),
        (["colour=red"], "no such filter: colour"),
        (["state=asleep"], "no such state: asleep"),
        (["label=a", "label=b"], "two filters for label"),
    ],
)
def test_a_wrong_filter_says_what_there_is(texts, complaint):
    with pytest.raises(RelayqError, match=complaint) as caught:
        read_filters(texts)

    assert caught.value.hint


def test_filters_name_states():
    assert states_of({"state": "*ed"}) == [
        JobState.SCHEDULED,
        JobState.QUEUED,
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
    ]
    assert states_of({"host": "pi4"}) == list(JobState)
    check_filters({"state": "failed"})
