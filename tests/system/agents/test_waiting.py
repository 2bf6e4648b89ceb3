"""Waiting is done in the queue: limits, overload and outages give the slot back."""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack, contextmanager

import pytest

from relayq.clock import now
from tests.agents.install import PROGRAMS
from tests.agents.replies import Fail, Say
from tests.agents.scenarios import scenario
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.agents]


@pytest.mark.parametrize("agent", PROGRAMS)
def test_too_many_requests_give_the_slot_back_and_the_same_session_goes_on(fleet, agent):
    fleet.api.play("throttles")
    job = fleet.ask(agent, "remember kumquat")

    fleet.until_state(job, "scheduled")
    first = fleet.answer(job)
    fleet.api.play("text")
    fleet.until_state(job, "succeeded")

    answer = fleet.answer(job)
    assert first["error_class"] == "rate_limited"
    assert answer["text"] == "the answer is 42"
    assert answer["session_id"] == first["session_id"]
    assert "kumquat" in fleet.api.asked[-1].turn.said
    assert job.record.attempt > 1


@pytest.mark.parametrize(("status", "error_class"), [(529, "overloaded"), (500, "transient")])
def test_an_overloaded_or_broken_api_is_tried_again_in_the_same_session(fleet, status, error_class):
    fleet.api.play("fails", status=status)
    job = fleet.ask("claude")

    fleet.until_state(job, "scheduled")
    first = fleet.answer(job)
    fleet.api.play("text")
    fleet.until_state(job, "succeeded")

    assert first["error_class"] == error_class
    assert fleet.answer(job)["session_id"] == first["session_id"]


def test_after_a_usage_limit_no_agent_of_the_account_starts_before_the_reset(fleet):
    resets = []

    def limited(turn):
        # However long the program takes to its first request.
        if not resets:
            resets.append(now() + 8)
        [reset] = resets
        return Say("it is over") if now() >= reset else Fail(429, "limit", resets_at=reset)

    fleet.api.play(limited)
    job = fleet.ask("claude")
    fleet.until_state(job, "scheduled")
    others = [fleet.ask("claude") for _ in range(3)]

    [reset] = resets
    [account] = fleet.accounts("claude/default")
    assert account.until == pytest.approx(reset, abs=2)
    for one in (job, *others):
        fleet.until_state(one, "succeeded")

    assert len(fleet.api.asked) == 5
    assert [asked for asked in fleet.api.asked[1:] if asked.at < reset - 1] == []
    assert job.record.failures == 0


@pytest.mark.parametrize("agent", ["codex", "gemini"])
def test_a_usage_limit_of_the_others_parks_their_account_as_well(fleet, agent):
    fleet.api.play("usage limit", resets_at=now() + 7200)
    job = fleet.ask(agent)

    fleet.until_state(job, "scheduled")

    [account] = fleet.accounts(f"{agent}/default")
    assert fleet.answer(job)["error_class"] == "usage_limit"
    assert account.until > now() + 600
    job.cancel()


def test_a_job_that_names_another_agent_goes_on_with_it(fleet):
    reset = now() + 7200
    fleet.api.play(
        "first", times=1, reply=Fail(429, "limit", resets_at=reset), then=scenario("text")
    )
    job = fleet.ask("claude", fallbacks=["codex"])

    fleet.until_state(job, "succeeded")

    assert fleet.answer(job)["agent"] == "codex"
    assert [asked.turn.number for asked in fleet.api.asked] == [1, 2]


@pytest.mark.parametrize("agent", PROGRAMS)
def test_an_api_out_of_reach_gives_the_slot_back_in_time(fleet, agent):
    job = fleet.ask(agent, account="away")
    until(lambda: job.record.phase == "started", within=20, what="the agent to start")
    began = now()

    fleet.until_state(job, "scheduled", within=30)

    # max_throttle_wait, 60 s by default, is 6 here; the rest of the 75 s isn't scaled.
    assert now() - began < 6 + 15
    assert fleet.answer(job)["error_class"] in {"transient", "overloaded"}
    job.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("agent", ["claude", "codex"])
def test_an_api_whose_network_drops_packets_gives_the_slot_back_in_time(fleet, agent):
    with nobody_accepts() as port:
        url = f"http://127.0.0.1:{port}"
        elsewhere = {
            "claude": {"env": {"ANTHROPIC_BASE_URL": url}},
            "codex": {"args": ["-c", f'model_providers.mock.base_url="{url}/v1"']},
        }
        job = fleet.ask(agent, **elsewhere[agent])
        until(lambda: job.record.phase == "started", within=20, what="the agent to start")
        began = now()

        fleet.until_state(job, "scheduled", within=40)
        held = now() - began
        job.cancel()

    assert held < 6 + 15
    assert fleet.answer(job)["error_class"] == "transient"


@contextmanager
def nobody_accepts():
    """Yield a port whose queue is full: the kernel drops whatever asks for a connection."""
    with socket.socket() as server, ExitStack() as held:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_codex_that_waits_an_hour_for_its_api_gives_the_slot_back(fleet):
    fleet.api.play("throttles", retry_after=3600)
    job = fleet.ask("codex")

    fleet.until_state(job, "scheduled", within=40)

    assert fleet.answer(job)["error_class"] == "rate_limited"
    assert len(fleet.api.asked) == 1
    job.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="needs sock_diag")
@pytest.mark.parametrize("agent", [*PROGRAMS, "ollama"])
def test_an_api_that_takes_a_request_and_is_silent_gives_the_slot_back_in_time(fleet, agent):
    fleet.api.play("silence")
    job = fleet.ask(agent)
    until(lambda: fleet.api.asked, within=20, what="the request")
    began = now()

    fleet.until_state(job, "scheduled", within=30)
    held = now() - began
    fleet.api.play("text")
    fleet.until_state(job, "succeeded")

    # answers_within is 6 here and 60 s by default; the rest of the 75 s isn't scaled.
    assert held < 6 + 15
    assert job.record.attempt == 2


@pytest.mark.parametrize("agent", PROGRAMS)
def test_a_tool_that_takes_long_is_waited_for(fleet, agent):
    fleet.api.play("runs a command", command="sleep 14; echo over")
    job = fleet.ask(agent, permission="full")

    fleet.until_state(job, "succeeded", within=60)

    assert job.record.attempt == 1


@pytest.mark.parametrize("agent", PROGRAMS)
def test_a_model_that_thinks_in_the_middle_of_an_answer_is_waited_for(fleet, agent):
    fleet.api.play("streams slowly", pieces=2, pause=10)
    job = fleet.ask(agent)

    fleet.until_state(job, "succeeded", within=60)

    assert job.record.attempt == 1


@pytest.mark.parametrize("agent", PROGRAMS)
def test_a_slow_answer_is_waited_for(fleet, agent):
    # Longer than max_throttle_wait and answers_within: only silence counts for these.
    fleet.api.play("streams slowly", pieces=9, pause=0.9)
    job = fleet.ask(agent)

    fleet.until_state(job, "succeeded")

    assert fleet.answer(job)["text"].endswith("word8")
    assert job.record.attempt == 1


@pytest.mark.parametrize("agent", ["claude", "codex"])
def test_a_slow_answer_after_a_retry_is_waited_for_as_well(fleet, agent):
    slow = scenario("streams slowly", pieces=9, pause=0.9)
    fleet.api.play("first", times=1, reply=Fail(529, "not now"), then=slow)
    job = fleet.ask(agent)

    fleet.until_state(job, "succeeded")

    assert job.record.attempt == 1
