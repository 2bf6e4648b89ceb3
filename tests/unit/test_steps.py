"""What a step knows of the steps before it: only what was signed, and nothing that isn't so."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from relayq import kinds
from relayq.config import Config
from relayq.errors import BadSignature, RelayqError
from relayq.host.fans import Fans
from relayq.host.steps import Steps, is_step
from relayq.kinds import Verdict
from relayq.model import steps
from relayq.model.expressions import ExpressionError, parse
from relayq.model.fans import child_of, is_child, parse_fans
from relayq.model.jobs import JobRecord, JobState, Outcome, Reason, Spec, Token
from relayq.model.output import STDOUT, frame
from relayq.model.steps import Ended, result_of
from relayq.signing import Signer
from relayq.store.leases import Claim

SIGNER = Signer(b"k" * 32)


def outcome(id: str = "a", state: JobState = JobState.SUCCEEDED, **facts: Any) -> Outcome:
    text = facts.pop("stdout", b"text\n")
    asked = {"attempt": 1, "uid": "u", "host": "pi4", "reason": "exit", "exit_code": 0, **facts}
    output = frame(STDOUT, 0.0, text)
    return Outcome(id, state=state, output=output, output_bytes=len(output), **asked)


def record(id: str = "a", state: JobState = JobState.SUCCEEDED, **facts: Any) -> JobRecord:
    asked = {"attempt": 1, "reason": "exit", **facts}
    return JobRecord(id, "run_command", state, "any", 5, 0.0, **asked)


class Store:
    """What a store knows of some jobs."""

    def __init__(self) -> None:
        self.records: dict[str, JobRecord] = {}
        self.specs: dict[str, bytes] = {}
        self.signed: dict[str, bytes] = {}
        self.referred: list[str] = []
        self.jobs = self.artifacts = self

    def add(self, spec: Spec, of: JobRecord, ended: Outcome | None = None) -> None:
        self.records[spec.id] = of
        self.specs[spec.id] = SIGNER.sign_spec(spec)
        if ended is not None:
            self.signed[spec.id] = SIGNER.sign_outcome(ended)

    def fetch_many(self, ids):
        return [self.records[id] for id in ids if id in self.records]

    def signed_specs(self, ids):
        return [self.specs.get(id) for id in ids]

    def outcomes(self, ids):
        return [self.signed.get(id) for id in ids]

    def refer(self, id, sha256s):
        self.referred += sha256s


@pytest.fixture
def store():
    """A store with job `a`, which succeeded."""
    made = Store()
    made.add(Spec("a", "run_command", {"cmd": "x"}), record(), outcome(outputs={"v": "1"}))
    return made


def work_out(store, spec: Spec, *, fanned: tuple[str, ...] = ()) -> Spec | Verdict:
    made = Steps(store, SIGNER, Fans(store, SIGNER, Config(home=Path("/nowhere"))))
    return made.work_out(spec, Claim(Token("j", 1, "u"), b"", 0, 0, (), fanned=fanned))


def step(cmd: Any = "echo ${{ steps.a.stdout }}", **fields: Any) -> Spec:
    asked = {"uses": {"a": ["a"]}, "after": ("a",), "is_template": True, **fields}
    return Spec("j", "run_command", {"cmd": cmd}, **asked)


@pytest.mark.parametrize(
    ("said", "ended", "result"),
    [
        (record(), outcome(), "success"),
        (record(reason="skipped", attempt=0), None, "skipped"),
        (record(reason="skipped"), outcome(reason="skipped"), "skipped"),
        (record(reason="user"), outcome(state=JobState.NEEDS_HUMAN), "success"),
        (record(reason="user"), None, "success"),
        (record(state=JobState.FAILED), outcome(state=JobState.FAILED), "failure"),
        (record(state=JobState.FAILED, reason="upstream", attempt=0), None, "failure"),
        (record(state=JobState.FAILED, reason="lost", attempt=2), outcome(), "failure"),
        (record(state=JobState.CANCELLED), outcome(), "cancelled"),
        (record(state=JobState.CANCELLED, attempt=0), None, "cancelled"),
    ],
)
def test_a_result_is_what_record_and_outcome_say_together(said, ended, result):
    assert result_of(said, ended) == result


@pytest.mark.parametrize(
    ("said", "ended"),
    [
        (record(), None),
        (record(attempt=2), outcome()),
        (record(), outcome(state=JobState.FAILED)),
        (record(), outcome(state=JobState.SCHEDULED)),
        (record(state=JobState.FAILED), outcome()),
        (record(reason="skipped"), outcome()),
        (record(reason="user"), outcome(state=JobState.FAILED)),
        (record(state=JobState.QUEUED), outcome()),
        (record(state=JobState.NEEDS_HUMAN), outcome()),
    ],
)
def test_a_record_that_says_more_than_was_signed_is_refused(said, ended):
    with pytest.raises(BadSignature, match=f"says {said.state}, and"):
        result_of(said, ended)


def test_an_expression_gets_what_was_signed(store):
    made = work_out(store, step(["a", "${{ steps.a.outputs.v }}${{ needs.a.result }}"]))

    assert isinstance(made, Spec)
    assert made.payload == {"cmd": ["a", "1success"]}


def test_in_a_shell_line_it_becomes_a_variable(store):
    made = work_out(store, step())

    assert isinstance(made, Spec)
    assert made.payload == {"cmd": "echo ${RELAYQ_X1}", "env": {"RELAYQ_X1": "text"}}


def exchanged(store: Store) -> None:
    store.signed["a"] = SIGNER.sign_outcome(outcome("b"))


def forged(store: Store) -> None:
    store.signed["a"] = store.signed["a"].replace(b"text", b"TEXT")


def of_another_key(store: Store) -> None:
    store.signed["a"] = Signer(b"x" * 32).sign_outcome(outcome())


def lost(store: Store) -> None:
    del store.signed["a"]


def promoted(store: Store) -> None:
    store.signed["a"] = SIGNER.sign_outcome(outcome(state=JobState.FAILED))


def other_spec(store: Store) -> None:
    store.specs["a"] = SIGNER.sign_spec(Spec("b", "run_command", {"cmd": "x"}))


@pytest.mark.parametrize(
    "change",
    [exchanged, forged, of_another_key, lost, promoted, other_spec],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("asked", [step(), step("x", condition="success()", is_template=False)])
def test_an_outcome_that_is_not_what_its_worker_signed_is_refused(store, change, asked):
    change(store)

    with pytest.raises(BadSignature) as error:
        work_out(store, asked)

    # With another host it would be no better: it isn't tried again as for a missing key.
    assert type(error.value) is BadSignature


def test_a_job_that_is_gone_is_an_error(store):
    store.records.clear()

    with pytest.raises(RelayqError, match="forgotten"):
        work_out(store, step())


def test_only_the_jobs_that_a_spec_names_can_be_read(store):
    store.add(Spec("b", "run_command", {"cmd": "x"}), record("b"), outcome("b"))

    with pytest.raises(ExpressionError, match="nothing is known here of a step 'b'; there is"):
        work_out(store, step("echo ${{ steps.b.stdout }}"))


def test_what_is_not_asked_for_is_not_fetched(store):
    lost(store)

    made = work_out(store, step("echo ${{ matrix.x }}", matrix={"x": 5}))

    assert isinstance(made, Spec)
    assert made.payload["env"] == {"RELAYQ_X1": "5"}


def test_a_step_whose_condition_is_not_true_is_skipped(store):
    verdict = work_out(store, step(condition="steps.a.outputs.v == '2'"))

    assert verdict == Verdict(JobState.SUCCEEDED, Reason.SKIPPED)
    assert isinstance(work_out(store, step(condition="${{ steps.a.outputs.v == 1 }}")), Spec)


def ended(id: str, counts_as: str, **facts: Any) -> Ended:
    return Ended(id, "run_command", facts.pop("result", counts_as), counts_as, **facts)


@pytest.mark.parametrize(
    ("ends", "true"),
    [
        (["success", "success"], {"success", "always"}),
        ([], {"success", "always"}),
        (["success", "failure"], {"failure", "always"}),
        (["cancelled"], {"cancelled", "always"}),
        (["skipped", "success"], {"always"}),
        (["failure", "cancelled", "skipped"], {"failure", "cancelled", "always"}),
    ],
)
def test_status_functions_see_how_the_jobs_before_ended(ends, true):
    functions = steps.status_functions([ended(str(n), end) for n, end in enumerate(ends)])

    assert {name for name, function in functions.items() if function()} == true


def test_a_lenient_failure_counts_as_success_unless_it_was_passed_on():
    assert steps.meaning_of("failure", "exit", is_lenient=True) == "success"
    assert steps.meaning_of("failure", "upstream", is_lenient=True) == "failure"
    assert steps.meaning_of("failure", "exit", is_lenient=False) == "failure"
    assert steps.meaning_of("skipped", "skipped", is_lenient=True) == "skipped"


def of(jobs: list[Ended], text: str) -> Any:
    return parse(text).evaluate({"steps": steps.Table({"s": steps.facts_of(jobs)})})


def test_a_long_output_is_an_error_that_says_what_to_do_instead():
    long = replace(outcome(), output=b"", output_bytes=99_999)

    with pytest.raises(ExpressionError, match="RELAYQ_OUTPUT"):
        of([ended("a", "success", outcome=long)], "steps.s.stdout")
    assert of([ended("a", "success", outcome=long)], "steps.s.host") == "pi4"


def test_of_several_jobs_the_worst_counts_and_outputs_are_merged_in_order():
    jobs = [
        ended("a", "success", outcome=outcome(outputs={"x": "1", "y": "1"}), matrix={"n": 1}),
        ended("b", "failure", outcome=outcome(outputs={"x": "2"}), matrix={"n": 2}),
        ended("c", "cancelled"),
    ]

    assert of(jobs, "steps.s.result") == "failure"
    assert of(jobs[::2], "steps.s.result") == "cancelled"
    assert of(jobs, "steps.s.outputs") == {"x": "2", "y": "1"}
    assert of(jobs, "steps.s.stdout") is None
    assert of(jobs, "steps.s.jobs[1].stdout") == "text"
    assert of(jobs, "join(steps.s.jobs.*.matrix.n, ' ')") == "1 2 "
    became = ended("d", "success", jobs=(ended("e", "success"), ended("f", "success")))
    assert of([*jobs, became], "join(steps.s.jobs.*.job)") == "a,b,c,e,f"


def test_an_agents_answer_is_its_text_or_its_value():
    answer = {"text": "hi", "structured": None, "cost_usd": 0.5}
    agents = [ended("a", "success", outcome=outcome(result=answer))]
    value = [ended("a", "success", outcome=outcome(result={**answer, "structured": {"n": [1]}}))]

    assert of(agents, "steps.s.stdout") == "hi"
    assert of(agents, "steps.s.value.cost_usd") == 0.5
    assert of(value, "steps.s.stdout.n[0]") == 1


def types(kind: str) -> dict[str, str]:
    return {f.name: str(f.type) for f in fields(kinds.find(kind).kind.Payload)}


def test_a_value_becomes_what_its_field_takes():
    names = {"matrix": {"n": 5, "none": None, "list": [1, "b"], "t": {"a": 1}}}
    command = {
        "cmd": ["x", "${{ matrix.n }}"],
        "env": {"N": "${{ matrix.n }}"},
        "cwd": "${{ matrix.none }}",
    }
    agent = {
        "prompt": "${{ matrix.t }}",
        "max_turns": "${{ matrix.n }}",
        "schema": "${{ matrix.t }}",
    }

    assert steps.filled(command, types("run_command"), names) == {
        "cmd": ["x", "5"],
        "env": {"N": "5"},
        "cwd": None,
    }
    for_shell = {"cmd": ["bash", "-c", "echo ${{ matrix.n }}", "${{ matrix.n }}"]}
    assert steps.filled(for_shell, types("run_command"), names) == {
        "cmd": ["bash", "-c", "echo ${RELAYQ_X1}", "5"],
        "env": {"RELAYQ_X1": "5"},
    }
    assert steps.filled(agent, types("run_claude"), names) == {
        "prompt": '{"a": 1}',
        "max_turns": 5,
        "schema": {"a": 1},
    }


FANS = Spec(
    "p", "run_command", {"cmd": "x"}, name="each", after=("a",), fans="x = list", matrix={"os": "l"}
)


def test_a_child_is_what_its_parent_is_without_what_comes_before():
    child = child_of(FANS, 2, {"x": "a b"})

    assert (child.name, child.matrix) == ("each (a b)", {"os": "l", "x": "a b"})
    assert (child.after, child.fans, child.payload) == ((), None, {"cmd": "x"})
    assert child == child_of(FANS, 2, {"x": "a b"})
    assert is_child(child, "p", 2)
    others = [child_of(FANS, 1, {"x": "a b"}), child_of(FANS, 2, {"x": "c"})]
    others.append(child_of(replace(FANS, id="q"), 2, {"x": "a b"}))
    assert len({child.id, *(one.id for one in others)}) == 4
    assert not is_child(child, "p", 1)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("x = l", [{"x": 1}, {"x": {"y": 2}}]),
        ("${{ l }}", [{"item": 1}, {"y": 2}]),
        ("x=${{ l }}", [{"x": 1}, {"x": {"y": 2}}]),
        ("m", [{"o": "a"}, {"o": "b", "z": 1}]),
        ('{"axes": {"x": "${{ l }}", "y": [3]}}', [{"x": 1, "y": 3}, {"x": {"y": 2}, "y": 3}]),
        ('{"axes": {"x": [1, 2]}, "exclude": [{"x": 1}]}', [{"x": 2}]),
        ("fromJSON('[]')", []),
    ],
)
def test_a_list_gives_the_values_of_each_job(text, made):
    names = {"l": [1, {"y": 2}], "m": {"o": ["a", "b"], "include": [{"o": "b", "z": 1}]}}

    assert parse_fans(text).combinations(names) == made


@pytest.mark.parametrize("text", ["'no list'", "5", "x = m", '{"axes": {"x": "${{ 5 }}"}}', "many"])
def test_what_is_no_list_or_too_long_is_an_error(text):
    with pytest.raises(RelayqError, match=r"list|at most 1000"):
        parse_fans(text).combinations({"m": {}, "many": [0] * 1001})


def test_jobs_are_collected_only_if_they_are_those_that_the_step_became(store):
    children = [child_of(FANS, n, {"x": n}) for n in range(2)]
    for n, child in enumerate(children):
        store.add(child, record(child.id), outcome(child.id, outputs={"last": str(n)}))
    ids = tuple(child.id for child in children)

    verdict = work_out(store, FANS, fanned=ids)

    assert isinstance(verdict, Verdict)
    assert (verdict.state, verdict.outputs) == (JobState.SUCCEEDED, {"last": "1"})
    for wrong in (ids[::-1], (*ids, "a")):
        with pytest.raises(BadSignature, match="none of the jobs that p became"):
            work_out(store, FANS, fanned=wrong)


def test_a_step_goes_on_waiting_for_a_job_that_runs_again(store):
    child = child_of(FANS, 0, {"x": 1})
    store.add(child, record(child.id, JobState.RUNNING, attempt=2), outcome(child.id))

    assert work_out(store, FANS, fanned=(child.id,)) == Verdict(
        JobState.WAITING, "fanned", result=[child.id]
    )


def test_what_a_step_became_is_known_by_its_signed_outcome(store):
    fans = replace(FANS, after=(), name="a", id="f")
    child = child_of(fans, 0, {"x": 7})
    store.add(child, record(child.id), outcome(child.id))
    told = {"jobs": [{"id": child.id, "matrix": {"x": 7}, "result": "success"}]}
    store.add(fans, record("f"), outcome("f", result=told))
    cmd = ["${{ steps.a.jobs[0].matrix.x }} ${{ steps.a.result }} ${{ steps.a.jobs[0].stdout }}"]

    made = work_out(store, step(cmd, uses={"a": ["f"]}))

    assert isinstance(made, Spec)
    assert made.payload["cmd"] == ["7 success text"]


def kept(name: str, **facts: Any) -> dict[str, Any]:
    return {"name": name, "sha256": "0" * 64, "size": 3, **facts}


def test_files_of_a_job_before_become_files_that_go_along(store):
    files = (kept("out/a.txt", mode=0o755), kept("out/b.log"), kept("c.txt", place="service"))
    store.add(Spec("a", "run_command", {"cmd": "x"}), record(), outcome(files=files))
    takes = ({"from": "a", "files": "*.txt", "to": "in"},)

    made = work_out(store, step("x", takes=takes, is_template=False))

    assert isinstance(made, Spec)
    assert [(one["dest"], one.get("mode")) for one in made.files_in] == [
        ("in/out/a.txt", 0o755),
        ("in/c.txt", None),
    ]
    assert store.referred == ["0" * 64] * 2


@pytest.mark.parametrize(
    ("take", "said"),
    [
        ({"files": "*.zip"}, "no file that matches *.zip"),
        ({"files": "*.iso"}, "still lies on its host"),
    ],
)
def test_files_that_are_not_to_be_had_fail_the_step(store, take, said):
    files = (kept("a.txt"), kept("b.iso", place="host", path="/x", error="no file service"))
    store.add(Spec("a", "run_command", {"cmd": "x"}), record(), outcome(files=files))
    asked = step("x", takes=({"from": "a", **take},), is_template=False)

    verdict = work_out(store, asked)

    assert isinstance(verdict, Verdict)
    assert (verdict.state, verdict.reason) == (JobState.FAILED, "files")
    assert said in str(verdict.error)


def test_files_that_would_lie_elsewhere_are_refused(store):
    store.add(Spec("a", "run_command", {"cmd": "x"}), record(), outcome(files=(kept("a.txt"),)))

    with pytest.raises(RelayqError, match="leads out of"):
        work_out(store, step("x", takes=({"from": "a", "files": "*", "to": "../x"},)))


def test_optional_files_may_be_missing(store):
    takes = ({"from": "a", "files": "*", "to": "", "optional": True},)

    assert work_out(store, step("x", takes=takes, is_template=False)).files_in == ()


def test_a_job_without_any_of_it_is_no_step():
    assert not is_step(Spec("j", "run_command", {"cmd": "echo ${{ x }}"}))
    assert is_step(step())
    assert json.dumps(step().as_dict())
