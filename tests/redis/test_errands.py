"""What a worker lets its jobs do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from relayq import config
from relayq.errors import NoSuchJob, RelayqError
from relayq.host.errands import Errands
from relayq.model.jobs import JobState, Spec, new_id
from relayq.model.secrets import need_of
from tests.redis.fleet import spec
from tests.redis.scenes import reach

AGENT = {"agent": "claude", "prompt": "do it", "permission": "edit"}
ACCOUNTS = ("claude/default",)
PRIVACY = "privacy:\n  work: {agents: [ollama], hosts: [mini]}\n"


@dataclass
class _Note:
    signed: bytes


@dataclass
class _Attempt:
    token: Any
    note: _Note


@dataclass
class Asker:
    """A running job, and its worker."""

    errands: Errands
    attempt: Any
    id: str
    fleet: Any

    def ask(self, verb: str, *args: Any, **options: Any) -> Any:
        return self.errands.run(self.attempt, verb, args, options)

    def submit(self, asked: Spec) -> Spec:
        [word] = self.ask("jobs.send", [(asked.as_dict(), "")])
        assert word in ("queued", "scheduled", "waiting")
        found = self.fleet.store.jobs.fetch(asked.id).spec
        assert self.fleet.signer.check_spec(
            self.fleet.store.jobs.signed_spec(asked.id), id=asked.id
        )
        return found


@pytest.fixture
def asker(fleet, store, home):
    """Make a running job of these fields, which can ask its worker."""
    (home / "config.yml").write_text(PRIVACY)

    def make(**fields: Any) -> Asker:
        id = reach(fleet, JobState.RUNNING, **fields)
        errands = Errands(store, fleet.signer, config.load({"RELAYQ_HOME": str(home)}), "mini")
        signed = store.jobs.signed_spec(id)
        return Asker(errands, _Attempt(store.jobs.fetch(id), _Note(signed)), id, fleet)

    return make


def prompt(**fields: Any) -> Spec:
    payload = {**AGENT, **fields.pop("payload", {})}
    needs = ("agent:claude",)
    return Spec(new_id(), "run_agent", payload, accounts=ACCOUNTS, **{"needs": needs, **fields})


def test_a_child_has_its_ancestors_its_submitter_and_its_parents_grant(asker):
    root = asker(grant={"hosts": ["mini"]})

    child = root.submit(spec(submitter="somebody@else", ancestors=("f" * 12,)))

    assert child.ancestors == (root.id,)
    assert child.submitter == f"{root.id}@mini"
    assert child.grant == {"hosts": ["mini"]}
    assert child.constraints.on == ("mini",)


def test_a_repeated_submit_makes_one_job(asker):
    root, one = asker(), spec()

    root.submit(one)
    root.submit(one)

    assert root.ask("jobs.family", root.id) == [one.id]


def test_another_jobs_id_cant_be_taken(asker, fleet):
    root = asker()
    other = fleet.submit()

    assert root.ask("jobs.send", [(replace(spec(), id=other).as_dict(), "")]) == ["clash"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "../x"},
        {"priority": 99},
        {"host": "NO HOST"},
        {"on": ("a b",)},
        {"accounts": ACCOUNTS},
        {"grant": {"depth": 9}},
        {"secrets": ("TOKEN",), "needs": (need_of("TOKEN"),)},
        {"files_in": ({"dest": "x"},)},
        {"payload": {"cmd": "true", "more": 1}},
        {"after": (new_id(),)},
        {"git": "--upload-pack=x", "needs": ("git",)},
        {"name": "last"},
    ],
)
def test_a_spec_that_wouldnt_be_made_outside_or_goes_too_far_is_refused(asker, store, wrong):
    root = asker()
    asked = replace(spec(), **wrong)

    with pytest.raises(RelayqError):
        root.ask("jobs.send", [(asked.as_dict(), "")])

    assert store.jobs.family(root.id) == []


def test_a_job_gives_on_the_secrets_that_it_has(asker):
    root = asker(secrets=("TOKEN",))

    child = root.submit(replace(spec(), secrets=("TOKEN",), needs=(need_of("TOKEN"),)))

    assert child.secrets == ("TOKEN",)


def test_a_private_jobs_child_is_as_private(asker):
    root = asker(labels=("private:work",))

    child = root.submit(spec())

    assert child.labels == ("private:work",)
    assert child.constraints.on == ("mini",)
    with pytest.raises(RelayqError, match="for mini only, not pi4"):
        root.submit(spec(host="pi4"))
    with pytest.raises(RelayqError, match="for ollama only, not for claude"):
        root.submit(prompt())


def test_an_unknown_privacy_lets_nothing_out(asker):
    root = asker(labels=("private:home",))

    with pytest.raises(RelayqError, match="doesn't know what is private as 'home'"):
        root.submit(spec())


def test_what_an_agent_may_spend_is_for_its_children_too(asker):
    root = asker(payload={"cmd": "claude", "budget": 1.0})

    first = root.submit(prompt(payload={"budget": 0.7}))
    second = root.submit(prompt())

    assert first.payload["budget"] == 0.7
    assert second.payload["budget"] == pytest.approx(0.3)
    with pytest.raises(RelayqError, match=r"1\.00 of 1\.00 USD are spent, or given"):
        root.submit(prompt())
    root.submit(spec())


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("jobs.fetch", ()),
        ("jobs.outcome", ()),
        ("jobs.cancel", ()),
        ("logs.follow", ("0" * 16,)),
        ("inputs.taken", ()),
        ("logs.read", (1,)),
    ],
)
def test_somebody_elses_job_is_none(asker, fleet, verb, args):
    root = asker()
    other = fleet.submit()

    with pytest.raises(NoSuchJob):
        root.ask(verb, other, *args)


def test_a_job_sees_itself_but_doesnt_cancel_itself(asker):
    root = asker()

    assert root.ask("jobs.fetch", root.id).id == root.id
    with pytest.raises(NoSuchJob):
        root.ask("jobs.cancel", root.id)


@pytest.mark.parametrize("verb", ["jobs.retry", "leases.tick", "connection.get", "jobs._words", ""])
def test_what_isnt_for_jobs_is_refused(asker, verb):
    with pytest.raises(RelayqError, match="can't ask for"):
        asker().ask(verb)


def test_a_host_is_asked_for_an_output_of_its_own_and_for_nothing_else(asker, fleet):
    root = asker()
    other = fleet.submit()

    with pytest.raises(RelayqError, match="for an output"):
        root.ask("hosts.ask", "mini", {"op": "cancel", "job": other})
    with pytest.raises(NoSuchJob):
        root.ask("hosts.ask", "mini", {"op": "follow", "job": other, "reply": "0" * 16})
