"""What a job may submit itself."""

from __future__ import annotations

import pytest

from relayq.errors import RelayqError
from relayq.model.grants import Grant, granted, narrowed, read_grant
from relayq.model.jobs import Spec, new_id


def spec(**fields):
    return Spec(id=new_id(), kind="run_command", payload={"cmd": "true"}, **fields)


def test_a_job_without_a_word_may_submit_any_kind_three_deep():
    assert granted(spec()) == Grant((), (), depth=3, at_once=20, most=100)
    assert spec().as_dict().get("grant") is None


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (None, {}),
        ("none", {"depth": 0}),
        (("hosts=mini,pi*", "depth=1"), {"hosts": ["mini", "pi*"], "depth": 1}),
        ({"kinds": ["run_agent"], "most": 5}, {"kinds": ["run_agent"], "most": 5}),
        ("depth=3", {}),
    ],
)
def test_a_grant_is_read_from_texts_or_fields(said, read):
    assert read_grant(said) == read
    assert granted(spec(grant=read_grant(said))).as_dict() == read


@pytest.mark.parametrize("said", ["all", "depth=x", "depth=99", {"hosts": "mini"}, {"most": True}])
def test_what_is_no_grant_is_refused(said):
    with pytest.raises(RelayqError, match="grant"):
        read_grant(said)


def test_a_job_at_its_grants_depth_may_submit_nothing():
    parent = spec(ancestors=("a" * 12, "b" * 12), grant={"depth": 2})

    with pytest.raises(RelayqError, match="2 jobs below aaaaaaaaaaaa .* depth is 2"):
        granted(parent).check(parent, spec())


def test_a_kind_that_wasnt_granted_is_refused():
    parent = spec(grant={"kinds": ["run_agent"]})

    with pytest.raises(RelayqError, match="run_agent only, not run_command"):
        granted(parent).check(parent, spec())


def test_a_job_that_asks_for_no_host_goes_to_those_that_were_granted():
    assert narrowed(spec(), ["mini", "pi*"], "it may go to") == {"on": ("mini", "pi*")}
    assert narrowed(spec(host="pi4"), ["mini", "pi*"], "it may go to") == {}
    assert narrowed(spec(host="pi4"), [], "it may go to") == {}


@pytest.mark.parametrize("asked", [{"host": "box"}, {"on": ("mini", "box")}, {"on": ("@heavy",)}])
def test_a_host_that_wasnt_granted_is_refused(asked):
    with pytest.raises(RelayqError, match="mini, pi. only, not"):
        narrowed(spec(**asked), ["mini", "pi*"], "it may go to")
