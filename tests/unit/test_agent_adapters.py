"""Agents as data: the table, what a user may change of it, and the command lines that it gives."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.agents import invocation
from relayq.agents.adapters import PARSERS, PLACEHOLDERS, Adapter, known, load
from relayq.agents.answers import ErrorClass
from relayq.agents.order import PERMISSIONS, Limits, Order, Reply
from relayq.agents.parsers import parser_named
from relayq.errors import ConfigError, RelayqError

AGENTS = load()
PROGRAMS = sorted(name for name, adapter in AGENTS.items() if not adapter.is_http)


def order(agent="claude", **asked):
    asked.setdefault("permission", next(iter(AGENTS[agent].permission)))
    asked.setdefault("prompt", "say hi")
    return Order(agent=agent, adapter=AGENTS[agent].as_dict(), **asked)


def argv(agent="claude", **asked):
    return invocation.argv(
        AGENTS[agent], order(agent, **asked), directory="/run/x", new_session="new-id"
    )


def test_the_agents_that_were_promised_are_there():
    assert set(AGENTS) == set(
        "claude codex gemini groq openai ollama vllm opencode copilot qwen amp cursor-agent goose "
        "aider grok".split()
    )


@pytest.mark.parametrize("name", AGENTS)
def test_an_adapter_survives_json(name):
    adapter = AGENTS[name]

    assert Adapter.from_dict(json.loads(json.dumps(adapter.as_dict()))) == adapter
    assert json.loads(json.dumps(adapter.as_dict())) == adapter.as_dict()


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_has_a_parser_and_a_permission_mode(name):
    assert AGENTS[name].parser in PARSERS
    assert parser_named(AGENTS[name].parser)
    assert AGENTS[name].permission.keys() <= set(PERMISSIONS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_placeholder_and_no_prompt_is_left_in_a_command_line(name):
    written = argv(name, prompt="do this thing")

    assert not [part for part in written if "{" in part and "}" in part]
    asked = AGENTS[name].prompt_via == "argv"
    assert ("do this thing" in written) == asked


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_resumed_session_is_named_in_the_command_line(name):
    if AGENTS[name].argv_resume:
        assert "old-id" in argv(name, session="old-id")
    else:
        with pytest.raises(RelayqError, match="no sessions"):
            argv(name, session="old-id")


def test_claude_is_asked_for_everything_by_its_flags():
    written = argv(
        permission="edit",
        model="sonnet",
        max_turns=5,
        budget=1.5,
        schema={"type": "object"},
        tools=("Bash(git *)", "Edit"),
        mcp={"relayq": {"command": "relayq", "args": ["mcp"]}},
        args=("--append-system-prompt", "be brief"),
    )

    assert written == [
        *"claude -p --output-format stream-json --verbose".split(),
        *"--include-partial-messages --session-id new-id".split(),
        *"--permission-mode acceptEdits --model sonnet --max-turns 5 --max-budget-usd 1.5".split(),
        "--json-schema",
        '{"type":"object"}',
        *("--allowedTools", "Bash(git *)", "Edit"),
        *"--mcp-config /run/x/mcp.json --strict-mcp-config".split(),
        *("--append-system-prompt", "be brief"),
    ]


def test_claude_forks_into_a_session_whose_id_is_known_beforehand():
    written = argv(session="old-id", fork=True)

    assert written[written.index("--resume") + 1] == "old-id"
    assert written[written.index("--session-id") + 1] == "new-id"
    assert "--fork-session" in written


def test_claude_has_no_session_id_of_ours_when_it_resumes():
    # A second use of an id is refused: "already in use".
    assert "--session-id" not in argv(session="old-id")


def test_codex_gets_its_options_before_the_session_and_its_prompt_by_standard_input():
    written = argv(
        "codex", permission="edit", session="old-id", schema={"type": "object"}, model="o3"
    )

    assert written == [
        *"codex exec resume --json --skip-git-repo-check -c".split(),
        'sandbox_mode="workspace-write"',
        *"-m o3 --output-schema /run/x/schema.json old-id -".split(),
    ]
    assert invocation.stdin(AGENTS["codex"], order("codex")) == "say hi"


names = st.text("abc-_.x 1", min_size=1, max_size=8)
settings = st.dictionaries(
    names,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.lists(st.text(max_size=5), max_size=3),
    max_size=3,
)


@given(st.dictionaries(names, settings, min_size=1, max_size=3))
def test_codex_reads_servers_back_as_they_were_given(mcp):
    written = argv("codex", mcp=mcp)
    value = next(part for part in written if part.startswith("mcp_servers="))

    assert tomllib.loads(value) == {"mcp_servers": mcp}


@pytest.mark.parametrize(("agent", "limit"), [("claude", None), ("codex", 7), ("gemini", 7)])
def test_turns_are_counted_for_an_agent_that_has_no_limit_of_its_own(agent, limit):
    asked = order(agent, max_turns=7)

    invocation.check(AGENTS[agent], asked)
    assert invocation.turn_limit(AGENTS[agent], asked) == limit
    assert invocation.turn_limit(AGENTS[agent], order(agent)) is None
    assert ("7" in argv(agent, max_turns=7)) == (limit is None)


def test_a_job_s_own_variables_come_last():
    asked = order(env={"DISABLE_TELEMETRY": "0", "MINE": "1"})

    environment = invocation.environment(AGENTS["claude"], asked, directory="/d")

    assert (environment["DISABLE_TELEMETRY"], environment["MINE"]) == ("0", "1")


def test_aider_gets_its_prompt_by_a_file():
    assert invocation.files(AGENTS["aider"], order("aider")) == {"prompt.txt": "say hi"}
    assert "/run/x/prompt.txt" in argv("aider")
    assert invocation.stdin(AGENTS["aider"], order("aider")) == ""


def test_files_hold_what_the_command_line_names():
    asked = order(schema={"type": "object"}, mcp={"a": {"command": "b"}})

    written = {
        name: json.loads(text) for name, text in invocation.files(AGENTS["claude"], asked).items()
    }

    assert written == {
        "schema.json": {"type": "object"},
        "mcp.json": {"mcpServers": {"a": {"command": "b"}}},
    }


def test_tools_that_a_person_allowed_are_added():
    asked = order(tools=("Edit",), answer=Reply(text="go on", allow=("Bash", "Edit")))

    assert asked.allowed == ("Edit", "Bash")


@pytest.mark.parametrize(
    ("agent", "asked", "message"),
    [
        ("opencode", {"max_turns": 5}, "opencode knows no limit of turns"),
        ("gemini", {"mcp": {"a": {"command": "b"}}}, "gemini knows no MCP servers"),
        ("codex", {"budget": 5.0}, "codex knows no budget"),
        ("codex", {"tools": ("Bash",)}, "codex knows no list of allowed tools"),
        ("gemini", {"schema": {}}, None),
        ("gemini", {"schema": {"type": "object"}}, "gemini knows no schema for its answer"),
        ("amp", {"model": "x"}, "amp knows no choice of models"),
        ("groq", {"mcp": {"a": {}}}, "groq knows no MCP servers"),
        ("groq", {"session": "s"}, "groq has no sessions"),
        ("gemini", {"session": "s", "fork": True}, "gemini can't fork a session"),
        ("grok", {"permission": "edit"}, "grok has no permission mode 'edit'; it has full"),
        ("amp", {"prompt": "x" * 130_000}, "can't be longer than 120000 bytes"),
        ("ollama", {}, "ollama needs the name of a model"),
        ("claude", {"prompt": "a\0b"}, "NUL"),
        ("amp", {"prompt": "\ud800"}, "surrogate"),
    ],
)
def test_what_an_agent_cannot_do_is_an_error_and_never_ignored(agent, asked, message):
    if message is None:
        invocation.check(AGENTS[agent], order(agent, **asked))
        return
    with pytest.raises(RelayqError, match=message):
        invocation.check(AGENTS[agent], order(agent, **asked))


def test_a_model_behind_an_api_takes_a_model_and_a_schema():
    invocation.check(AGENTS["groq"], order("groq", model="x", schema={"type": "object"}))


def test_a_prompt_is_never_a_flag():
    assert " --yolo" in argv("qwen", prompt="--yolo")
    assert "--yolo" not in argv("cursor-agent", prompt="--yolo", permission="full")


def test_full_permission_as_root_is_refused_unless_somebody_allowed_it():
    claude = AGENTS["claude"]
    full = order(permission="full")
    allowed = order(permission="full", is_root_allowed=True)

    def variables(asked, *, is_root):
        return invocation.environment(claude, asked, directory="/d", is_root=is_root)

    assert invocation.refuses_root(claude, full)
    assert not invocation.refuses_root(claude, allowed)
    assert not invocation.refuses_root(claude, order(permission="edit"))
    assert not invocation.refuses_root(AGENTS["codex"], order("codex", permission="full"))
    assert variables(allowed, is_root=True)["IS_SANDBOX"] == "1"
    assert "IS_SANDBOX" not in variables(allowed, is_root=False)
    assert "IS_SANDBOX" not in variables(full, is_root=True)


def test_an_order_survives_json():
    asked = order(
        tools=("Edit",),
        args=("-x",),
        answer=Reply("yes", ("Bash",)),
        limits=Limits(stall=5.0),
        schema={"type": "object"},
        session="s",
    )

    assert Order.from_dict(json.loads(json.dumps(asked.as_dict()))) == asked


def test_a_permission_that_does_not_exist_is_named():
    with pytest.raises(RelayqError, match="no such permission: 'yolo'"):
        order(permission="yolo")
    with pytest.raises(RelayqError, match="only a session can be forked"):
        order(fork=True)


def test_a_user_changes_an_agent_key_by_key():
    changed = load(
        {
            "claude": {
                "command": "/opt/claude",
                "env": {"API_TIMEOUT_MS": 1000},
                "answers_within": "10m",
            }
        }
    )["claude"]

    assert changed.command == "/opt/claude"
    assert changed.env["API_TIMEOUT_MS"] == "1000"
    assert changed.env["CLAUDE_CODE_MAX_RETRIES"] == "3"
    assert (changed.first_answer, AGENTS["codex"].first_answer) == (600, 60)
    assert (AGENTS["ollama"].first_answer, AGENTS["groq"].first_answer) == (0, 60)
    assert changed.argv_new == AGENTS["claude"].argv_new


def test_a_user_adds_an_agent():
    mine = load(
        {
            "mine": {
                "command": "my-agent",
                "parser": "text",
                "argv_new": ["--quiet", "{options}", "-"],
                "permission": {"edit": ["--write"]},
            },
            "box": {
                "parser": "openai_http",
                "url": "http://gpu-box:11434/v1",
                "permission": {"read_only": []},
            },
        }
    )

    asked = Order(agent="mine", adapter=mine["mine"].as_dict(), prompt="x")
    assert invocation.argv(mine["mine"], asked, directory="/d") == [
        "my-agent",
        "--quiet",
        "--write",
        "-",
    ]
    assert mine["box"].is_http


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"comand": "x"}, r"agents.mine: unknown key 'comand' \(did you mean 'command'\?\)"),
        ({"command": "x"}, "agents.mine: needs a parser: claude_stream"),
        ({"parser": "xml"}, "agents.mine.parser: expected one of claude_stream"),
        ({"parser": "text"}, "agents.mine: needs a command"),
        ({"parser": "openai_http"}, "agents.mine: needs a url"),
        ({"parser": "text", "command": "x"}, "agents.mine: needs permission"),
        ({"parser": "text", "permission": {"yolo": []}}, "agents.mine.permission: expected one of"),
        ({"argv_new": ["{sesion}"]}, r"agents.mine.argv_new: no such placeholder: \{sesion\}"),
        ({"argv_new": "-p"}, "agents.mine.argv_new: expected a list of texts"),
        ({"argv_new": [["-p"]]}, "agents.mine.argv_new: expected a text"),
        ({"env": ["A"]}, "agents.mine.env: expected names and values"),
        ({"env": {"A=B": "x"}}, "agents.mine.env: expected a variable's name"),
        ({"answers_within": "soon"}, "agents.mine.answers_within: expected a duration"),
        ({"session": "cwd"}, "agents.mine.session: expected one of"),
        ("claude", "agents.mine: expected keys"),
    ],
)
def test_a_wrong_entry_is_named_with_its_place(entry, message):
    with pytest.raises(ConfigError, match=message):
        load({"mine": entry})


def test_a_name_that_cannot_be_a_capability_is_refused():
    with pytest.raises(ConfigError, match="lower-case letters"):
        load({"My Agent": {"parser": "text", "command": "x", "permission": {"edit": []}}})


def test_an_agent_that_nobody_knows_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no such agent: 'claud' \(did you mean 'claude'\?\)"):
        known("claud", AGENTS)


def test_everything_about_agents_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "agents.md").read_text(encoding="utf-8")
    keys = {field.name for field in fields(Adapter)} - {"name"}
    placeholders = {f"{{{name}}}" for name in PLACEHOLDERS}

    missing = [
        word
        for word in [*AGENTS, *PARSERS, *PERMISSIONS, *ErrorClass, *keys, *placeholders]
        if f"`{word}`" not in page
    ]

    assert not missing
