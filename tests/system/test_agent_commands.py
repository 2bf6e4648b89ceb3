"""The commands about agents, with a program of our own that plays one."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import end_all
from tests.system.commands import ROOT, begin, relayq, shown, submit
from tests.waiting import until

pytestmark = pytest.mark.system

AGENT = """#!/bin/sh
prompt=$(cat)
case $prompt in
  *where*) pwd ;;
  *limited*) echo "Server is temporarily limiting requests" >&2; exit 1 ;;
  *copy*) tr a-z A-Z < names > loud ;;
  *fail*) echo "it broke" >&2; exit 3 ;;
  *) echo "you said: $prompt" ;;
esac
"""
CONFIG = """
agents:
  default: mine
  mine:
    command: {home}/mine
    parser: text
    argv_new: [--new]
    permission: {{read_only: [], edit: []}}
    accounts: {{default: {{limit: 2, stagger: 0}}}}
privacy:
  work: {{agents: [mine]}}
  other: {{agents: [codex]}}
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A machine with an agent, and its worker up."""
    home = Path(tempfile.mkdtemp(prefix="rq-", dir="/tmp"))
    (home / "mine").write_text(AGENT)
    (home / "mine").chmod(0o755)
    (home / "config.yml").write_text(CONFIG.format(home=home))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAYQ_HOME", str(home))
        patch.setenv("RELAYQ_WORKER__NAME", "here")
        # The first one to want it starts what is missing, and waits for the agent to be known.
        done = relayq("agent", "run", "hello")
        assert done.returncode == 0, done.stderr
        yield home
        end_all(home)
    shutil.rmtree(home, ignore_errors=True)


def ok(*arguments, **options):
    done = relayq(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done


def read(*arguments):
    return json.loads(ok(*arguments, "--json").stdout)


def test_run_shows_the_transcript_and_says_who_may_do_what(here):
    done = ok("agent", "run", "mine", "hello", "there")

    assert "you said: hello there" in done.stdout
    assert "mine, permission edit, on any host" in done.stderr


def test_files_travel_with_an_agents_job(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names").write_text("ann\n")

    ok("agent", "run", "--in", "names", "--out", "loud", "mine", "copy", "them")
    ok(*("agent", "run", "--answer-only", "--in", "names", "--out", "loud:more"), "copy")

    assert (tmp_path / "loud").read_text() == (tmp_path / "more").read_text() == "ANN\n"


def test_the_default_agent_needs_no_name(here):
    assert "you said: hello" in ok("agent", "run", "hello").stdout


def test_a_misspelt_agent_is_no_part_of_the_prompt(here):
    done = relayq("agent", "run", "claud", "fix it")

    assert done.returncode == 2
    assert "did you mean claude?" in done.stderr


def test_one_prompt_is_for_one_host(here):
    done = relayq("agent", "run", "--on", "all", "hello")

    assert done.returncode == 125
    assert "one host" in done.stderr


def test_a_prompt_may_be_piped_in(here):
    piped = {"stdin": None, "input": "from a pipe\n"}

    assert "you said: from a pipe" in ok("agent", "run", "mine", **piped).stdout
    assert (
        "you said: look:\nfrom a pipe" in ok("agent", "run", "mine", "look:", "-", **piped).stdout
    )


def test_who_follows_is_told_what_is_waited_for(here, tmp_path):
    agents, command = tmp_path / "agents", tmp_path / "command"
    with agents.open("wb") as first, command.open("wb") as second:
        waiting = [
            begin("agent", "run", "limited", stderr=first),
            begin("run", "--retries", "1", "--backoff", "50s..50s", "--", "false", stderr=second),
        ]
    said = {agents: "rate limit; mine/default waits until ", command: "exit 1; again in "}

    try:
        for file, words in said.items():
            until(lambda f=file, w=words: w in f.read_text(), within=30, what=file.read_text)
    finally:
        for one in waiting:
            one.terminate()
            one.communicate(timeout=30)
        relayq("agent", "quota", "--resume", "mine")


def test_the_answer_alone_is_printed_on_demand(here):
    assert ok("agent", "run", "hello", "--answer-only", "-q").stdout == "you said: hello\n"


def test_result_prints_the_answer_and_json_the_whole_of_it(here):
    id = ok("agent", "run", "-d", "hello").stdout.strip()
    ok("wait", id)

    assert ok("result", id).stdout == "you said: hello\n"
    assert read("result", id)["result"]["agent"] == "mine"


def test_a_run_without_a_queue_works_in_this_directory(here, tmp_path):
    done = ok("agent", "run", "--local", "where", cwd=tmp_path)

    assert str(tmp_path) in done.stdout
    assert "mine, permission edit, on here, here" in done.stderr
    assert not read("ps", "-a", "--filter", f"meta.cwd={tmp_path}")["jobs"]


def test_a_local_run_exits_and_answers_as_a_queued_one(here):
    done = relayq("agent", "run", "--local", "fail", "--json")

    told = json.loads(done.stdout)
    assert done.returncode == told["exit_code"] != 0
    assert told["answer"]["status"] != "ok"


def test_options_that_need_a_queue_are_refused_locally(here):
    done = relayq("agent", "run", "--local", "--on", "here", "x")

    assert done.returncode == 2
    assert "no on" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--schema", "nosuch.json"], "no such file"),
        (["--mcp", "[1]"], "no such file"),
        (["--schema", "{"], "no JSON"),
        (["--permission", "yolo"], "read-only"),
        ([""], "the prompt is empty"),
    ],
)
def test_what_is_typed_wrong_is_said_before_anything_is_queued(here, options, said):
    done = relayq("agent", "run", "mine", *options, *(["x"] if options != [""] else []))

    assert done.returncode == 2
    assert said in done.stderr


def test_a_dry_run_shows_agent_permission_and_queue(here):
    done = ok("agent", "run", "mine", "hello", "--permission", "read-only", "--dry-run")

    assert "mine, permission read_only" in done.stdout
    assert "account=mine/default" in done.stdout


def test_a_private_label_keeps_a_job_from_other_agents(here):
    done = relayq("agent", "run", "--private", "other", "hello")

    assert done.returncode == 125
    assert "for codex only, not for mine" in done.stderr
    ok("agent", "run", "--private", "work", "hello")


def test_ls_shows_hosts_permission_and_accounts(here):
    assert "mine" in ok("agent", "ls").stdout
    [mine] = [one for one in read("agent", "ls")["agents"] if one["agent"] == "mine"]

    assert (mine["host"], mine["usable"], mine["permission"]) == ("here", True, "edit")
    assert mine["accounts"] == ["mine/default"]


def test_show_and_ps_say_agent_and_permission(here):
    id = ok("agent", "run", "-d", "hello").stdout.strip()
    ok("wait", id)

    assert "mine, permission edit" in ok("show", id).stdout
    assert "agent/mine" in ok("ps", "-a").stdout


def test_test_asks_each_agent_and_says_what_works(here):
    told = read("agent", "test", "mine")["tests"]

    assert [(one["agent"], one["host"], one["works"]) for one in told] == [("mine", "here", True)]
    assert relayq("agent", "test", "nosuch").returncode == 125


def test_a_paused_account_holds_its_jobs_until_it_is_resumed(here):
    ok("agent", "quota", "--pause", "mine", "--for", "1h")
    id = ok("agent", "run", "-d", "hello").stdout.strip()
    assert "mine/default waits for its limit" in ok("why", id).stdout
    [account] = read("agent", "quota")["accounts"]
    assert account["until"]
    assert account["queued"] == 1

    ok("agent", "quota", "--resume", "mine/default")

    ok("wait", id, "--timeout", "30s")


def test_login_says_what_it_would_run(here):
    assert ok("agent", "login", "here", "claude", "--dry-run").stdout == "claude setup-token\n"
    assert relayq("agent", "login", "here", "mine").returncode == 125


def test_sessions_is_empty_for_agents_without_any(here):
    assert read("agent", "sessions") == {"schema": 1, "sessions": []}


# People


def asking(*words):
    """Start a job that asks, with relayq as it is installed where the job runs."""
    asks = "$PYTHON -m relayq ask " + " ".join(words)
    return submit(
        "-e", f"PYTHON={sys.executable}", "-e", f"PYTHONPATH={ROOT}", f"{asks}; echo rc=$?"
    )


def until_asked(id):
    until(lambda: shown(id)["question"], within=15, what=f"{id} to ask")


def test_a_job_asks_and_goes_on_with_the_answer(here):
    id = asking("'Drop it?'", "--choice yes --choice no")
    until_asked(id)
    [review] = [one for one in read("review")["jobs"] if one["id"] == id]
    assert (review["question"], review["choices"]) == ("Drop it?", ["yes", "no"])
    assert "1  yes" in ok("review").stdout

    assert read("answer", id, "--choice", "2") == {"schema": 1, "id": id, "became": "told"}

    ok("wait", id, "--timeout", "30s")
    assert ok("logs", id).stdout == "no\nrc=0\n"
    assert id not in {one["id"] for one in read("review")["jobs"]}


def test_who_gets_no_answer_in_time_asks_no_more(here):
    id = asking("'Drop it?'", "--timeout 1s")

    ok("wait", id, "--timeout", "30s")

    assert ok("logs", id).stdout == "rc=75\n"
    until(lambda: shown(id)["question"] is None, within=10, what="the question to be gone")


def test_nobody_asks_outside_of_a_job(here):
    done = relayq("ask", "hello?")

    assert done.returncode == 125
    assert "isn't inside a job" in done.stderr


def test_an_answer_to_a_job_that_asks_nothing_is_refused(here):
    id = submit("true")
    ok("wait", id)

    done = relayq("answer", id, "yes")

    assert done.returncode == 125
    assert "asks nothing" in done.stderr
    assert relayq("answer", id).returncode == 2


# Work in words


def test_assign_proposes_and_queues_with_the_description_as_a_note(here):
    told = read("assign", "-y", "explain the login")

    assert (told["host"], told["agent"], told["permission"]) == ("here", "mine", "read_only")
    assert told["by"] == "rules"
    ok("wait", told["id"], "--timeout", "30s")
    assert shown(told["id"])["spec"]["note"] == "explain the login"


def test_assign_asks_somebody_or_is_told_not_to(here):
    before = len(read("ps", "-a")["jobs"])

    assert relayq("assign", "explain it").returncode == 2
    ok("assign", "--dry-run", "explain it")

    assert len(read("ps", "-a")["jobs"]) == before


def test_assign_refuses_what_no_host_can_do(here):
    done = relayq("assign", "-y", "build the ios app")

    assert done.returncode == 125
    assert "lacks xcodebuild" in done.stderr


def test_assign_runs_a_quoted_command_as_it_is(here):
    told = read("assign", "-y", "run `echo hello`")

    ok("wait", told["id"], "--timeout", "30s")
    assert ok("result", told["id"]).stdout == "hello\n"


def test_an_interrupted_question_is_taken_back(here, tmp_path, monkeypatch):
    desk = tmp_path / "desk"
    monkeypatch.setenv("RELAYQ_DESK", str(desk))
    asker = begin("ask", "still there?")
    until((desk / "question.json").exists, within=10, what="the question")

    asker.send_signal(signal.SIGTERM)

    asker.communicate(timeout=10)
    assert not (desk / "question.json").exists()
