"""Accounts of agents: in queues' names, in what a host offers, and why nothing starts on one."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from relayq.errors import RelayqError, Unplaceable
from relayq.host.queues import Queues
from relayq.model.accounts import Account, Quota, accounts_of, lines, room, why_not
from relayq.model.jobs import Spec
from relayq.model.placement import (
    Constraints,
    HostFacts,
    agent_of,
    constrain,
    constraints_of,
    lacks,
    place,
    queue_of,
    serves,
)
from relayq.store.leases import Registry

QUEUE = "needs.kind:run_agent,account=claude/default|codex/work"
JOB = Spec(
    id="a00000000000",
    kind="run_agent",
    payload={},
    accounts=("claude/default", "codex/work"),
)
CLAUDE = HostFacts("pi4", capabilities=frozenset({"kind:run_agent", "agent:claude"}))
CODEX = replace(CLAUDE, capabilities=frozenset({"kind:run_agent", "agent:codex"}))
PLAIN = replace(CLAUDE, capabilities=frozenset({"kind:run_agent"}))
NOW = 1_000_000.0


# Queues


def test_the_accounts_are_in_the_queues_name_the_first_choice_first():
    assert JOB.queue == QUEUE
    assert constraints_of(QUEUE).accounts == JOB.accounts
    assert accounts_of(QUEUE) == JOB.accounts
    turned = replace(JOB, accounts=JOB.accounts[::-1])
    assert turned.queue == "needs.kind:run_agent,account=codex/work|claude/default"


@pytest.mark.parametrize("queue", ["any", "host.pi4", "needs.ffmpeg", "needs.account=", "with.abc"])
def test_other_queues_have_no_accounts(queue):
    assert accounts_of(queue) == ()


def test_a_host_serves_it_that_has_one_of_the_agents():
    assert serves(QUEUE, CLAUDE)
    assert serves(QUEUE, CODEX)
    assert not serves(QUEUE, PLAIN)
    assert lacks(JOB.constraints, PLAIN) == ["lacks agent:claude and agent:codex"]
    with pytest.raises(Unplaceable, match="pi4 lacks agent:claude and agent:codex"):
        place(JOB.constraints, [PLAIN])


def test_a_job_that_stays_where_its_session_is_keeps_its_accounts():
    assert JOB.queue_on("pi4") == f"{QUEUE},on=pi4"
    assert replace(JOB, on=("@heavy",)).queue_on("pi4") == f"{QUEUE},on=pi4"


def test_on_the_host_of_its_session_the_account_of_that_comes_first():
    start = "needs.kind:run_agent,account="

    assert JOB.queue_on("pi4", "codex/work") == f"{start}codex/work|claude/default,on=pi4"
    assert JOB.queue_on("pi4", "codex/work", alone=True) == f"{start}codex/work,on=pi4"
    assert JOB.queue_on("pi4", "gemini/x", alone=True) == f"{QUEUE},on=pi4"


def test_a_job_may_go_on_without_one_of_its_accounts():
    assert JOB.queue_without("claude/default") == "needs.kind:run_agent,account=codex/work"
    assert JOB.queue_without("gemini/default") == QUEUE
    assert replace(JOB, accounts=("claude/default",)).queue_without("claude/default") == ""


def test_accounts_are_checked_and_named_once():
    made = constrain(accounts=["Claude/Default", "codex/work", "claude/default"])

    assert made == Constraints(accounts=("claude/default", "codex/work"))
    assert constraints_of(queue_of(made)) == made
    assert agent_of("codex/work") == "codex"


@pytest.mark.parametrize("text", ["claude", "claude/", "/x", "a/b/c", "a/b|c", "a b/c", "@a/b", ""])
def test_what_is_no_account_is_refused(text):
    with pytest.raises(RelayqError, match="AGENT/NAME"):
        constrain(accounts=[text])


@pytest.mark.parametrize(
    "queue",
    [
        "needs.account=claude",
        "needs.account=a/b|",
        "needs.account=A/b",
        "needs.account=a/b,ffmpeg",
        "needs.account=a/b,account=c/d",
    ],
)
def test_a_queue_that_no_job_has_is_served_by_nobody(queue):
    with pytest.raises(ValueError, match="not the name of a queue"):
        constraints_of(queue)
    assert not serves(queue, CLAUDE)


def test_no_resource_is_called_account():
    with pytest.raises(RelayqError, match="a resource is"):
        constrain(resources={"account": 1})


# What a host offers


def offer(capabilities, quotas=None, **facts):
    queues = Queues("pi4", {}, quotas)
    queues.describe({"capabilities": ["kind:run_agent", *capabilities], **facts})
    queues.learn(Registry("1", (QUEUE,), ""))
    return dict(queues.offer([])).get(QUEUE)


def test_a_claim_is_told_what_the_fleet_may_use_of_each_account():
    quotas = {"claude/default": Quota(limit=5, budget_usd=2.5, stagger=1.0)}

    wants = offer(["agent:claude", "agent:codex"], quotas)

    assert wants is not None
    own, other = wants.split()
    assert re.fullmatch(r"@claude/default=5:2500000:[12]\.\d{3}", own)
    assert re.fullmatch(r"@codex/work=3:0:[234]\.\d{3}", other)


def test_an_agent_that_is_not_here_is_marked():
    wants = offer(["agent:codex"])

    assert wants is not None
    assert wants.startswith("@!claude/default=")
    assert " @codex/work=" in wants


def test_what_the_jobs_take_of_the_host_comes_first():
    queues = Queues("pi4", {})
    name = "needs.kind:run_agent,cuda=1,account=claude/default"
    capabilities = ["kind:run_agent", "agent:claude"]
    queues.describe({"capabilities": capabilities, "resources": {"cuda": 1}})
    queues.learn(Registry("1", (name,), ""))
    running = b'k m {"kind": "run_agent", "resources": {"cuda": 1}}'

    assert dict(queues.offer([]))[name].startswith("cuda @claude/default=")
    assert dict(queues.offer([running]))[name].startswith("!cuda @claude/default=")


# Why nothing starts


@pytest.mark.parametrize(
    ("account", "said"),
    [
        (Account("claude/default"), ""),
        (Account("claude/default", limit=2, active=("a",)), ""),
        (Account("claude/default", until=NOW - 1), ""),
        (Account("claude/default", probing=True), ""),
        (
            Account("claude/default", until=NOW + 60, reason="five_hour"),
            "claude/default waits for its limit until 20:00 (five_hour)",
        ),
        (
            Account("claude/default", until=NOW + 60),
            "claude/default waits for its limit until 20:00",
        ),
        (
            Account("claude/default", budget_usd=5.0, spent_usd=5.25),
            "claude/default has spent $5.25 of $5.00 today",
        ),
        (
            Account("claude/default", limit=2, active=("a", "b")),
            "claude/default has 2 of 2 jobs running",
        ),
        (
            Account("claude/default", probing=True, active=("a",), limit=3),
            "claude/default was at its limit: a tries it, alone",
        ),
    ],
)
def test_why_nothing_starts_on_an_account(account, said):
    assert why_not(account, NOW, lambda at: "20:00") == said


def test_a_job_with_an_account_that_is_free_waits_for_none():
    paused = Account("claude/default", until=NOW + 60)

    assert lines([paused, Account("codex/work")], NOW, str) == []
    assert len(lines([paused], NOW, str)) == 1
    assert lines([], NOW, str) == []


@pytest.mark.parametrize(
    ("eased", "age", "expected"),
    [(None, 0, 6), (3, -60, 3), (3, 299, 3), (3, 300, 4), (3, 900, 6), (3, 1e9, 6), (8, 0, 6)],
)
def test_an_account_that_was_slowed_down_gets_its_room_back_one_by_one(eased, age, expected):
    assert room(6, eased, 1000.0, 1000.0 + age) == expected
