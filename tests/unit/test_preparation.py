"""A claimed job is prepared only as it was signed, and with what a person really answered."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from relayq import clock
from relayq.agentsections import Privacy
from relayq.config import Config
from relayq.host.admission import Admission
from relayq.host.attempts import ClaimNote
from relayq.host.cargo import Cargo
from relayq.host.delivery import Attempt
from relayq.host.preparation import Preparation, quotas_of
from relayq.model.accounts import Quota
from relayq.model.hosts import Host
from relayq.model.jobs import JobState, Spec, Token
from relayq.model.questions import Reply
from relayq.signing import Signer
from relayq.store.leases import Claim

SIGNER = Signer(b"k" * 32)
SPEC = Spec("j1", "run_claude", {"prompt": "please"}, accounts=("claude/default",))


@pytest.fixture
def prepare(tmp_path):
    """Return a function that prepares a claim; the verdict, and what was written."""
    queues = SimpleNamespace(may_run=lambda queue: True, is_one_of=lambda places: "here" in places)
    left = {}
    known = []
    store = SimpleNamespace(
        inputs=None,
        checkpoints=SimpleNamespace(of=left.get),
        hosts=SimpleNamespace(list=lambda online_within: known),
    )

    def prepared(spec=SPEC, privacy=None, checkpoint=None, hosts=(), **facts):
        known[:] = [Host(name, name, "b", 1, 0.0, is_online=True) for name in hosts]
        left["j1"] = checkpoint and SIGNER.sign_note("checkpoint j1", checkpoint)
        config = Config(home=tmp_path, privacy=privacy or {})
        cargo = Cargo(config, store, SIGNER)
        admission = Admission(config, "here", store, SIGNER, may_run=queues.may_run)
        permit = tmp_path / "permit"
        made = Preparation(config, "here", store, SIGNER, queues, permit, cargo, admission)
        facts = {"account": "claude/default", **facts}
        claim = Claim(Token("j1", 2, "u"), SIGNER.sign_spec(spec), 0, 0, ())
        claim = replace(claim, **facts)
        note = ClaimNote(claim.signed, 0, 0, claim.account)
        attempt = Attempt(claim.token, note, tmp_path / "spool" / "j1.2.u")
        verdict = made.prepare(attempt, claim)
        if verdict is not None:
            return verdict, None, None
        command = json.loads((attempt.directory / "command.json").read_text())
        return None, command, json.loads(Path(command["stdin"]).read_text())

    return prepared


def test_a_job_is_told_where_its_report_and_its_desk_are(prepare, tmp_path):
    verdict, command, _ = prepare()

    assert verdict is None
    directory = tmp_path / "spool" / "j1.2.u"
    assert command["env"]["RELAYQ_REPORT"] == str(directory / "report.json")
    assert command["env"]["RELAYQ_DESK"] == str(directory / "desk")
    assert command["claim"]["account"] == "claude/default"


@pytest.mark.parametrize("content", [b"42\x00", None, b"x" * (256 * 1024 + 1)])
def test_a_further_attempt_has_what_the_one_before_it_left_if_that_can_be(
    prepare, tmp_path, content
):
    _, command, _ = prepare(checkpoint=content)

    file = tmp_path / "spool" / "j1.2.u" / "checkpoint"
    assert command["env"]["RELAYQ_CHECKPOINT"] == str(file)
    if content == b"42\x00":
        assert (file.read_bytes(), file.stat().st_mode & 0o777) == (content, 0o600)
    else:
        assert not file.exists()


def test_a_first_attempt_asks_for_nothing_that_was_left(prepare, tmp_path):
    verdict, _, _ = prepare(checkpoint=b"another's", token=Token("j1", 1, "u"))

    assert verdict is None
    assert not list((tmp_path / "spool").glob("*/checkpoint"))


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (Privacy(), ""),
        (Privacy(agents=("claude",), hosts=("here", "lab*")), ""),
        (Privacy(agents=("ollama",)), "privacy.work of this host's configuration doesn't allow cl"),
        (Privacy(hosts=("gpu-box",)), "privacy.work of this host's configuration doesn't allow th"),
    ],
)
def test_what_a_host_keeps_private_runs_only_where_that_says(prepare, kept, said):
    verdict, _, _ = prepare(replace(SPEC, labels=("private:work", "x")), {"work": kept})

    assert (verdict.reason, said in verdict.error) == ("refused", True) if said else not verdict


def test_a_private_label_that_a_host_does_not_know_is_its_submitters(prepare):
    assert prepare(replace(SPEC, labels=("private:home",)), {"work": Privacy()})[0] is None


def test_an_account_that_was_not_signed_for_is_refused(prepare):
    verdict, _, _ = prepare(account="claude/other")

    assert (verdict.state, verdict.reason) == (JobState.FAILED, "refused")
    assert "claude/default" in verdict.error


def test_a_persons_answer_gets_to_the_order(prepare):
    reply = Reply("j1", 1, text="yes", allow=("Bash",))

    _, _, order = prepare(answer=SIGNER.sign_answer(reply))

    assert order["answer"] == {"text": "yes", "allow": ["Bash"]}


@pytest.mark.parametrize(
    "reply",
    [
        SIGNER.sign_answer(Reply("j1", 2, text="yes")),
        SIGNER.sign_answer(Reply("j2", 1, text="yes")),
        SIGNER.sign_answer(Reply("j1", 1, text="yes"))[:-3] + b"no}",
        b"yes",
    ],
)
def test_an_answer_that_nobody_signed_for_this_attempt_is_asked_for_again(prepare, reply):
    verdict, command, _ = prepare(answer=reply)

    assert (verdict.state, command) == (JobState.NEEDS_HUMAN, None)
    assert "answer again" in verdict.question


def test_accounts_have_the_quotas_of_the_configuration():
    agents = {
        "claude": {"accounts": {"work": {"limit": 1, "budget": 5.0, "stagger": 0.0}, "home": {}}},
        "codex": {"stall": 60.0},
    }

    assert quotas_of(agents) == {"claude/work": Quota(1, 5.0, 0.0), "claude/home": Quota()}


# Where a host asks whose word it is


@pytest.fixture
def strict(prepare, tmp_path):
    """Return a function that prepares a job which nobody authorised here may submit."""
    (tmp_path / "authorized_submitters").write_text("# nobody\n")
    (tmp_path / "authorized_submitters").chmod(0o600)

    def refused(spec=COMMAND, hosts=("here", "there"), **facts):
        verdict, *_ = prepare(spec, hosts=hosts, account="", **facts)
        assert (verdict.reason, "here refused it: " in verdict.error) == ("refused", True)
        return verdict.state, verdict.queue

    return refused


COMMAND = Spec("j1", "run_command", {"cmd": "true"}, signed_at=int(clock.now()))


def test_a_job_that_a_host_refuses_goes_on_to_those_that_have_not(strict):
    assert strict() == (JobState.SCHEDULED, "needs.!here")
    three = ("here", "there", "far")
    once = strict(hosts=three, queue="needs.!there")
    assert once == (JobState.SCHEDULED, "needs.!here,!there")


@pytest.mark.parametrize(
    "options",
    [
        {"hosts": ("here",)},
        {"queue": "needs.!there"},
        {"spec": replace(COMMAND, host="here")},
        {"spec": replace(COMMAND, with_job="j2")},
    ],
)
def test_one_that_nobody_else_could_take_has_failed(strict, options):
    state, queue = strict(**options)

    assert (state, queue) == (JobState.FAILED, options.get("spec", COMMAND).queue)
