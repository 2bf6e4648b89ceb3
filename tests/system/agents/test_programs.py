"""What our adapters make of an order, the real programs accept; what they say, we understand."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from relayq.agents import adapters, classify, invocation, parsers
from relayq.agents.order import PERMISSIONS, Order
from relayq.agents.summaries import Summary
from relayq.clock import now
from tests.agents.install import PROGRAMS
from tests.agents.server import MockApi
from tests.system.agents.place import Place, user

pytestmark = [pytest.mark.system, pytest.mark.agents]
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}
TABLE = adapters.load()


@pytest.fixture
def place(home):
    with MockApi() as api:
        made = Place(home / "place", api)
        made.directory.mkdir()
        home.chmod(0o755)
        made.build()
        yield made


def run(place, agent, **asked):
    """Run an agent once, as the runner on a host does; return the answer."""
    adapter = TABLE[agent]
    wanted = {"prompt": "please do it", "cwd": str(place.work), **asked}
    order = Order(agent=agent, adapter=adapter.as_dict(), **wanted)
    directory = place.directory / uuid4().hex
    directory.mkdir()
    for name, text in invocation.files(adapter, order).items():
        (directory / name).write_text(text)
    place.hand_over(directory)
    extra = invocation.environment(adapter, order, directory=str(directory))
    done = subprocess.run(
        invocation.argv(adapter, order, directory=str(directory), new_session=str(uuid4())),
        input=invocation.stdin(adapter, order).encode(),
        capture_output=True,
        cwd=place.work,
        env=place.environment(**place.keys, **extra, TERM="dumb"),
        timeout=60,
        **user(),
    )
    return understood(adapter, order, done)


def understood(adapter, order, done):
    """Return the answer that an ended program's output comes to."""
    parser, summary = parsers.parser_named(adapter.parser), Summary()
    events = [event for line in done.stdout.splitlines() for event in parser.feed(line.decode())]
    stderr = done.stderr.decode()
    events += [event for line in stderr.splitlines() for event in parser.feed_error(line)]
    for event in (*events, *parser.finish(done.returncode)):
        summary.add(event)
    answer = classify.answer(
        summary,
        order=order,
        stderr=stderr[-4000:],
        exit_code=done.returncode,
        signal=None,
        ended_by=None,
        now=now(),
    )
    print(done.stdout.decode(), stderr, answer, sep="\n")  # what pytest shows of a failure
    return answer


@pytest.mark.parametrize("agent", PROGRAMS)
def test_every_permission_mode_is_one_that_the_program_knows(place, agent):
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda mode: run(place, agent, permission=mode), PERMISSIONS))

    assert [answer.status for answer in answers] == ["ok"] * 3
    assert {answer.text for answer in answers} == {"the answer is 42"}
    assert all(answer.session_id and answer.usage.total for answer in answers)


@pytest.mark.parametrize("agent", PROGRAMS)
def test_a_session_goes_on_and_can_be_forked_with_every_option_that_the_agent_has(place, agent):
    adapter = TABLE[agent]
    options = {
        "max_turns": {"max_turns": 7},
        "budget": {"budget": 2.5},
        "tools": {"tools": ("Read",) if agent == "claude" else ("read_file",)},
        "mcp": {"mcp": {"probe": {"command": "true", "args": ["a b"]}}},
        "model": {"model": "claude-sonnet-4-5" if agent == "claude" else "gemini-2.5-pro"},
    }
    known = [name for name in options if getattr(adapter, name)]
    asked = {key: value for name in known for key, value in options[name].items()}

    first = run(place, agent, prompt="remember the word kumquat", **asked)
    second = run(place, agent, prompt="which word?", session=first.session_id, **asked)
    if adapter.argv_fork:
        third = run(place, agent, session=first.session_id, fork=True, **asked)

    assert [first.status, second.status] == ["ok", "ok"]
    assert second.session_id == first.session_id
    assert "kumquat" in place.api.asked[1].turn.said
    if adapter.argv_fork:
        assert third.status == "ok"
        assert third.session_id not in {None, first.session_id}
        assert "which word?" in place.api.asked[2].turn.said


@pytest.mark.parametrize("agent", ["claude", "codex"])
def test_an_answer_comes_in_the_form_that_was_asked_for(place, agent):
    place.api.play("structured", value={"answer": 42})

    answer = run(place, agent, schema=SCHEMA)

    assert (answer.status, answer.structured) == ("ok", {"answer": 42})


@pytest.mark.parametrize("agent", PROGRAMS)
def test_an_unknown_session_is_told_apart_from_other_failures(place, agent):
    answer = run(place, agent, session=str(uuid4()))

    assert answer.error_class == "session_not_found"
    assert not place.api.asked


@pytest.mark.parametrize(
    ("agent", "scenario", "error_class"),
    [
        ("claude", "cuts", "transient"),
        ("codex", "cuts", "transient"),
        ("codex", "breaks", "overloaded"),
        ("gemini", "cuts", "transient"),
        ("gemini", "unauthorized", "auth"),
        ("gemini", "refuses", "refused"),
    ],
)
def test_a_failure_is_of_the_class_that_decides_what_becomes_of_the_job(
    place, agent, scenario, error_class
):
    place.api.play(scenario)

    answer = run(place, agent)

    assert answer.error_class == error_class
