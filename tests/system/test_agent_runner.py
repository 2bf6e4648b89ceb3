"""The runner program and nasty agents: whatever one does, its run ends and leaves an answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from relayq.errors import RelayqError
from relayq.host.sessions import Sessions
from relayq.kinds import HostFacts, find
from tests.waiting import until

pytestmark = pytest.mark.system

FAKE = str(Path(__file__).with_name("fake_agent.py"))
LIMITS = {"stall": "2", "max_throttle_wait": "1", "grace": "0.5"}


class Place:
    """A host without a worker: orders are carried out right here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.state = directory / "relayq" / "agents"
        self.home.mkdir()
        self.state.parent.mkdir()
        self.report = directory / "report.json"
        self.notes = directory / "notes"
        self.agents: dict[str, Any] = {"claude": {"command": FAKE, **LIMITS}}

    def start(
        self, script: Any, *, job: str = "j1", attempt: int = 1, answer: Any = None, **asked: Any
    ) -> subprocess.Popen[str]:
        """Start the runner with an order for an agent that acts by this script."""
        payload = {"agent": "claude", "prompt": "please", **asked}
        payload["env"] = {"FAKE": json.dumps(script), "NOTES": str(self.notes)}
        facts = HostFacts(
            "here", str(self.home), str(self.state), agents=self.agents, answer=answer
        )
        declared = find("run_agent")
        command = declared.kind.plan(declared.read_payload(payload), facts)
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "CLAUDECODE": "1",
            "CLAUDE_CODE_ENTRYPOINT": "cli",
            "RELAYQ_BROKER__URL": "redis://secret",
            "RELAYQ_JOB_ID": job,
            "RELAYQ_ATTEMPT": str(attempt),
            "RELAYQ_REPORT": str(self.report),
            "RELAYQ_DESK": str(self.directory / "desk"),
        }
        self.report.unlink(missing_ok=True)
        process = subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write((command.stdin or b"").decode())
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, script: Any, **asked: Any) -> dict[str, Any]:
        """Have an order carried out; the answer, with `said` and `seconds`."""
        began = monotonic()
        process = self.start(script, **asked)
        said, _ = process.communicate(timeout=60)
        answer = json.loads(self.report.read_text())["answer"]
        return {**answer, "said": said, "seconds": monotonic() - began, "code": process.returncode}

    def runs(self) -> list[dict[str, Any]]:
        """Return what the agent noted of each of its runs."""
        return [json.loads(line) for line in self.notes.read_text().splitlines()]


@pytest.fixture
def place(tmp_path):
    """A host, of which nothing is left running."""
    yield Place(tmp_path)
    for process in psutil.process_iter(["cmdline"]):
        if str(tmp_path) in " ".join(process.info["cmdline"] or []):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def test_an_agents_answer_is_its_report_and_its_words_are_the_transcript(place):
    answer = place.run(["init", "read", ["text", "thinking"], ["result", "forty-two"]])

    assert (answer["status"], answer["text"], answer["code"]) == ("ok", "forty-two", 0)
    assert (answer["cost_usd"], answer["turns"], answer["host"]) == (0.25, 1, "here")
    assert "thinking\n" in answer["said"]
    [run] = place.runs()
    assert (run["prompt"], run["session"]) == ("please", answer["session_id"])
    assert run["cwd"] == answer["cwd"] == str(place.state / "scratch" / "j1")
    [raw] = place.state.glob("runs/j1.1/raw.jsonl")
    assert [json.loads(line)["type"] for line in raw.read_text().splitlines()][-1] == "result"


def test_an_agent_gets_an_allow_list_and_nothing_of_relayqs(place):
    place.run(["init", "read", "result"])

    env = place.runs()[0]["env"]
    assert "please" not in json.dumps({"env": env, "args": place.runs()[0]["args"]})
    assert env["TERM"] == "dumb"
    assert {"RELAYQ_JOB_ID", "RELAYQ_ATTEMPT", "RELAYQ_DESK"} <= env.keys()
    assert not {"CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "RELAYQ_BROKER__URL", "RELAYQ_REPORT"} & {
        *env
    }


@pytest.mark.parametrize(
    ("script", "error_class"),
    [
        (["init", "read", ["exit", 0]], "crashed"),
        (["init", ["exit", 3]], "crashed"),
        (["init", ["die", signal.SIGKILL]], "crashed"),
        ([["exit", 0]], "crashed"),
        (["init", "read", "garbage", ["exit", 0]], "crashed"),
        (["init", "read", "refused"], "needs_review"),
        (["init", "read", ["error", "Not logged in · Please run /login"]], "auth"),
    ],
)
def test_an_exit_code_of_zero_is_no_success(place, script, error_class):
    answer = place.run(script)

    assert (answer["error_class"], answer["status"] != "ok") == (error_class, True)


@pytest.mark.parametrize(
    "script",
    [
        ["init", ["big line", 50_000_000], "result"],
        ["init", "garbage", "result"],
        ["init", "result", ["text", "not yet"], ["exit", 1]],
        ["deaf", "init", "result"],
        ["init", "result", "mute"],
        ["init", ["shout", "\x1b[2J a warning"], "result"],
    ],
)
def test_what_is_odd_does_not_hide_a_success(place, script):
    answer = place.run(script)

    assert (answer["status"], answer["text"]) == ("ok", "done")
    assert "\x1b" not in answer["said"]


def test_a_prompt_that_is_never_read_is_no_reason_to_wait(place):
    answer = place.run(["init", "result"], prompt="x" * 3_000_000)

    assert answer["status"] == "ok"


def test_a_child_that_holds_the_output_open_does_not_hold_the_slot(place, tmp_path):
    answer = place.run(["init", "result", ["child", str(tmp_path / "pid")]])

    assert (answer["status"], answer["seconds"] < 15) == ("ok", True)


@pytest.mark.parametrize(
    ("script", "error_class"),
    [
        (["deaf", "init", ["sleep", 600]], "stalled"),
        (["init", "retry for ever"], "rate_limited"),
        (["init", ["retry", 3600], ["sleep", 600]], "rate_limited"),
        (["deaf", "init", ["retry", 0.5], ["sleep", 600]], "rate_limited"),
    ],
)
def test_a_run_that_only_waits_is_ended_and_worth_another_try(place, script, error_class):
    answer = place.run(script)

    assert (answer["status"], answer["error_class"]) == ("requeued", error_class)
    assert (answer["code"], answer["seconds"] < 15) == (75, True)


def test_an_agent_that_does_not_go_after_its_last_word_is_ended(place):
    answer = place.run(["deaf", "init", "result", ["sleep", 600]])

    assert (answer["status"], answer["seconds"] < 30) == ("ok", True)


def test_turns_are_counted_for_an_agent_that_cannot_count_them_itself(place):
    place.agents["claude"]["max_turns"] = []
    one = ["use", "text"]

    answer = place.run(["init", *one * 20, ["sleep", 600]], max_turns=3)

    assert (answer["status"], answer["error_class"]) == ("needs_human", "max_turns")
    assert answer["seconds"] < 15


def test_progress_after_a_wait_is_no_waiting(place):
    script = ["init"]
    for _ in range(4):
        script += [["retry", 0.4], ["sleep", 0.5], ["text", "on"], ["sleep", 0.3]]

    assert place.run([*script, "result"])["status"] == "ok"


def test_an_agent_that_has_closed_its_output_is_ended(place):
    answer = place.run(["init", "mute", ["sleep", 600]])

    assert answer["status"] == "requeued"
    assert answer["seconds"] < 30


@pytest.mark.parametrize("script", [["init", "chatter"], ["deaf", "init", "chatter"]])
def test_a_runner_that_is_asked_to_end_ends_its_agent_and_still_reports(place, script):
    process = place.start(script)
    until(lambda: "still here" in process.stdout.readline(), what="the agent to speak")

    process.terminate()
    process.communicate(timeout=20)

    answer = json.loads(place.report.read_text())["answer"]
    assert (answer["status"], process.returncode) == ("cancelled", 130)
    assert answer["session_id"]


def test_it_reports_before_a_deaf_agent_is_gone(place):
    place.agents["claude"]["grace"] = "60"
    process = place.start(["deaf", "init", "chatter"])
    until(lambda: "still here" in process.stdout.readline(), what="the agent to speak")

    process.terminate()
    until(place.report.exists, what="the report")

    process.kill()
    process.communicate(timeout=20)
    assert json.loads(place.report.read_text())["answer"]["error_class"] == "cancelled"


# Sessions


def test_a_further_attempt_goes_on_in_the_session_of_the_one_before(place):
    first = place.run(["init", "read", ["text", "half"], ["exit", 1]])
    second = place.run(["init", "read", "result"], attempt=2)

    assert second["session_id"] == first["session_id"]
    assert second["cwd"] == first["cwd"]
    told = place.runs()[1]
    assert "--resume" in told["args"]
    assert told["prompt"].startswith("Continue where you left off")


def test_a_session_that_never_heard_its_prompt_is_told_it_again(place):
    place.run(["init", "read", ["exit", 1]])
    place.run(["init", "read", "result"], attempt=2)

    assert [run["prompt"] for run in place.runs()] == ["please", "please"]


def test_a_carried_session_that_is_gone_begins_anew_once(place):
    gone = ["read", ["shout", "No conversation found with session ID: x"], ["exit", 1]]
    script = {"first": ["init", "read", ["text", "hm"], "result"], "again": gone}
    place.run(script)

    answer = place.run(script, attempt=2)

    assert (answer["status"], answer["is_context_lost"]) == ("ok", True)
    assert [run["prompt"][:8] for run in place.runs()] == ["please", "Continue", "please"]


def test_a_session_that_somebody_named_and_that_is_gone_is_an_error(place):
    gone = ["read", ["shout", "No conversation found with session ID: x"], ["exit", 1]]

    answer = place.run(gone, session="0f0f0f0f-0000-4000-8000-000000000000")

    assert (answer["status"], answer["error_class"]) == ("failed", "session_not_found")
    assert len(place.runs()) == 1


def test_another_session_than_the_one_asked_for_is_an_error(place):
    answer = place.run([["init", "other"], "chatter"], session="mine")

    assert answer["error_class"] == "session_not_found"


def test_a_session_in_use_is_tried_again_soon(place):
    held = Sessions(str(place.state)).lock("mine")

    answer = place.run(["init", "result"], session="mine")

    assert (answer["status"], answer["error_class"]) == ("requeued", "session_in_use")
    assert not place.notes.exists()
    os.close(held)
    assert place.run(["init", "result"], session="mine")["status"] == "ok"


def test_a_daemon_of_the_agent_does_not_hold_its_session(place, tmp_path):
    place.run(["init", ["child", str(tmp_path / "pid")], "result"], session="mine")

    assert place.run(["init", "result"], session="mine")["status"] == "ok"


def test_the_last_session_of_a_directory_is_found(place, tmp_path):
    work, other = tmp_path / "work", tmp_path / "other"
    work.mkdir()
    other.mkdir()
    first = place.run(["init", "read", "result"], cwd=str(work))
    place.run(["init", "read", "result"], cwd=str(other), job="j2")

    again = place.run(["init", "read", "result"], cwd=str(work), job="j3", continue_=True)

    assert again["session_id"] == first["session_id"]
    nowhere = place.run(["init", "result"], cwd=str(tmp_path), job="j4", continue_=True)
    assert nowhere["error_class"] == "session_not_found"
    assert str(tmp_path) in nowhere["message"]


def test_an_answer_goes_to_the_session_with_the_tools_it_allows_for_good(place):
    place.run(["init", "read", ["text", "hm"], "refused"])
    answer = {"text": "You may.", "allow": ["Bash(rm x)"]}
    place.run(["init", "read", ["exit", 1]], attempt=2, answer=answer)
    place.run(["init", "read", "result"], attempt=3)

    # The second run may not have heard it before it ended.
    assert [run["prompt"] for run in place.runs()[1:]] == ["You may.", "You may."]
    assert all("Bash(rm x)" in run["args"] for run in place.runs()[1:])


# What a host has and hasn't


def keys(place, text, mode=0o600):
    path = place.state.with_suffix(".env")
    path.touch(mode=mode)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_an_agent_gets_the_keys_that_are_its_own_and_they_are_masked(place):
    keys(place, "# mine\nANTHROPIC_API_KEY=sk-abcdefgh\nGROQ_API_KEY='gsk-other-key'\n")

    answer = place.run(
        ["init", "read", ["text", "it is sk-abcdefgh"], ["result", "key sk-abcdefgh"]]
    )

    env = place.runs()[0]["env"]
    assert (env["ANTHROPIC_API_KEY"], "GROQ_API_KEY" in env) == ("sk-abcdefgh", False)
    assert answer["text"] == "key [ANTHROPIC_API_KEY]"
    written = [file for file in place.directory.rglob("*") if file.is_file()]
    holders = [file.name for file in written if b"sk-abcdefgh" in file.read_bytes()]
    assert sorted(holders) == ["agents.env", "notes"]
    assert "sk-abcdefgh" not in answer["said"]


def test_keys_that_others_can_read_are_refused_with_the_remedy(place):
    path = keys(place, "ANTHROPIC_API_KEY=sk-abcdefgh\n", mode=0o644)

    answer = place.run(["init", "result"])

    assert (answer["status"], answer["error_class"]) == ("needs_human", "auth")
    assert f"chmod 600 {path}" in answer["message"]


def test_a_key_may_be_one_accounts_alone(place):
    keys(place, "ANTHROPIC_API_KEY=common-key\nANTHROPIC_API_KEY@work=key-of-work\n")
    place.agents["claude"]["accounts"] = {"work": {"env": {"CLAUDE_CONFIG_DIR": "/work"}}}

    place.run(["init", "read", "result"])
    place.run(["init", "read", "result"], job="j2", account="work")

    envs = [run["env"] for run in place.runs()]
    assert [env["ANTHROPIC_API_KEY"] for env in envs] == ["common-key", "key-of-work"]
    assert envs[1]["CLAUDE_CONFIG_DIR"] == "/work"


def test_what_is_missing_is_named(place, tmp_path):
    place.agents["claude"]["command"] = str(tmp_path / "nothing")
    assert place.run([])["error_class"] == "missing"

    place.agents["claude"]["command"] = FAKE
    answer = place.run([], cwd=str(tmp_path / "gone"))
    assert (answer["status"], answer["message"]) == (
        "failed",
        f"no such directory: {tmp_path / 'gone'}",
    )


def test_full_permission_is_refused_to_root_before_anything_starts(place):
    declared = find("run_claude")
    payload = declared.read_payload({"prompt": "x", "permission": "full"})
    facts = HostFacts("pi4", "/root", str(place.state), is_root=True)

    with pytest.raises(RelayqError, match="doesn't run as root: run the worker of pi4 as an ordin"):
        declared.kind.plan(payload, facts)

    allowed = {"claude": {"allow_root_sandbox": "yes"}}
    sandbox = HostFacts("pi4", "/root", str(place.state), is_root=True, agents=allowed)
    assert declared.kind.plan(payload, sandbox).argv[0] == sys.executable


# Models behind an API


class Api(BaseHTTPRequestHandler):
    """Answers with what the server's `reply` is."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        status, headers, text = self.server.reply
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def api(place):
    """An API on loopback."""
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1/"
        place.agents["groq"] = {"url": url, **LIMITS}
        yield server
        server.shutdown()


STREAM = {"Content-Type": "text/event-stream"}


def piece(**facts):
    return f"data: {json.dumps({'model': 'llama', **facts})}\n\n"


def test_a_model_behind_an_api_answers_like_any_agent(place, api):
    keys(place, "GROQ_API_KEY=gsk-abcdefgh\n")
    words = [piece(choices=[{"delta": {"content": word}}]) for word in ("Hel", "lo\n", "you")]
    end = piece(
        choices=[{"delta": {}, "finish_reason": "stop"}],
        usage={"prompt_tokens": 7, "completion_tokens": 3},
    )
    api.reply = (200, STREAM, "".join([*words, end, "data: [DONE]\n\n"]))

    answer = place.run([], agent="groq", model="llama")

    assert (answer["status"], answer["text"]) == ("ok", "Hello\nyou")
    assert (answer["usage"]["input"], answer["usage"]["output"]) == (7, 3)
    [(path, authorization, body)] = api.asked
    assert (path, authorization) == ("/v1/chat/completions", "Bearer gsk-abcdefgh")
    assert body["messages"] == [{"role": "user", "content": "please"}]


def test_an_api_that_is_busy_or_away_gives_the_slot_back(place, api):
    error = json.dumps({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})
    api.reply = (429, {"retry-after": "7"}, error)
    busy = place.run([], agent="groq")
    assert (busy["error_class"], busy["retry_after"]) == ("rate_limited", 7.0)

    place.agents["groq"]["url"] = "http://127.0.0.1:9/v1"
    away = place.run([], agent="groq")
    assert (away["status"], away["error_class"]) == ("requeued", "transient")
