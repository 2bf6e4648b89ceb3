"""Steps on a real worker: what one gives to the next, whether it runs, and what it becomes."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import pytest

from relayq.dispatch import Dispatcher
from relayq.host.fans import Fans
from relayq.model.files import FileOut
from relayq.model.jobs import Spec, new_id
from relayq.results import JobResult
from relayq.store.keys import Keys
from tests.system.commands import until_exists
from tests.waiting import until

pytestmark = pytest.mark.system

RELAYQ = f"{sys.executable} -m relayq"


def step(cmd: str | list[str], *parents: Spec, **fields: Any) -> Spec:
    """Return a step that comes after others and may use them by their names."""
    payload = {"cmd": cmd, **fields.pop("payload", {})}
    asked = {
        "name": fields.pop("step", "step"),
        "after": tuple(one.id for one in parents),
        "uses": {str(one.name): [one.id] for one in parents},
        "is_template": "${{" in json.dumps(payload),
        **fields,
    }
    return Spec(new_id(), "run_command", payload, **asked)


def run(fleet, *specs: Spec) -> list[JobResult]:
    """Submit these steps, and return them all when they have ended."""
    results = submit(fleet, *specs)
    for result in results:
        result.wait(40)
    return results


def submit(fleet, *specs: Spec) -> list[JobResult]:
    session = fleet.relay.session()
    Dispatcher(session.store, session.signer).submit(specs)
    return [fleet.job.fetch(spec.id) for spec in specs]


def ends(results: list[JobResult]) -> list[str]:
    """Return how each job ended and why."""
    return [f"{one.state} {one.reason}" for one in results]


def test_a_value_gets_from_step_to_step_byte_by_byte_and_is_never_code(shared_fleet, tmp_path):
    proof = tmp_path / "proof"
    value = f'it\'s "q" $(touch {proof}) `touch {proof}`; touch {proof} #\n  * ü\\n ${{X}}\n'
    first = step(
        'printf "text<<END\\n%s\\nEND\\n" "$V" >> "$GITHUB_OUTPUT"; printf %s "$V"; '
        f"{RELAYQ} output n=7 'list=[\"a b\", 2]'",
        step="first",
        payload={"env": {"V": value, "PYTHONPATH": shared_fleet.environ["PYTHONPATH"]}},
    )
    second = step(
        "printf '%s|' \"${{ steps.first.outputs.text }}\" '${{ needs.first.stdout }}' "
        '"$GIVEN" $((${{ steps.first.outputs.n }} + 1)); cat',
        first,
        step="second",
        payload={
            "env": {"GIVEN": "${{ fromJSON(steps.first.outputs.list)[0] }}"},
            "stdin": "${{ steps.first.result }} on ${{ steps.first.host }}",
        },
    )
    third = step(
        ["printf", "%s,", "${{ steps.second.outputs }}", "$(x) ${{ steps.first.outputs.n }}"],
        first,
        second,
    )

    results = run(shared_fleet, first, second, third)

    assert ends(results) == ["succeeded exit"] * 3
    # Of its output the one final newline isn't the value's.
    assert results[1].get() == f"{value}|{value.removesuffix(chr(10))}|a b|8|success on here"
    assert results[2].get() == "{},$(x) 7,"
    assert results[0].outputs == {"text": value, "n": "7", "list": '["a b", 2]'}
    assert not proof.exists()


def test_files_of_one_step_lie_in_the_directory_of_the_next(shared_fleet):
    out = FileOut("out/*").as_dict()
    makes = step("mkdir out; echo one > out/1.txt; echo no > out/2.log", files_out=(out,))
    takes = ({"from": makes.id, "files": "*.txt", "to": "parts"},)
    has = step("find . -type f | xargs cat", makes, takes=takes)
    lacks = step("true", makes, takes=({"from": makes.id, "files": "*.zip", "to": ""},))

    results = run(shared_fleet, makes, has, lacks)

    assert ends(results) == ["succeeded exit", "succeeded exit", "failed files"]
    assert results[1].get() == "one"
    assert "no file that matches *.zip" in str(results[2].outcome().error)


def test_a_condition_that_is_not_true_skips_its_step_and_what_comes_after(shared_fleet, tmp_path):
    first = step("echo go=no >> $RELAYQ_OUTPUT", step="first")
    ran = tmp_path / "ran"
    condition = "success() && steps.first.outputs.go == 'yes'"
    skips = step(f"touch {ran}", first, step="skips", condition=condition)
    after = step(f"touch {ran}", skips)
    always = step(
        "echo ${{ steps.skips.result }} ${{ matrix.n }}", skips, when="always", matrix={"n": 3}
    )

    results = run(shared_fleet, first, skips, after, always)

    assert ends(results) == ["succeeded exit", *["succeeded skipped"] * 2, "succeeded exit"]
    assert results[3].get() == "skipped 3"
    assert not ran.exists()


def test_failures_are_seen_excused_and_passed_on(shared_fleet):
    fails = step("echo why >&2; exit 3", step="fails")
    excused = step("exit 4", step="excused", is_lenient=True)
    sees = step(
        "echo ${{ steps.fails.result }} ${{ steps.fails.exit_code }}", fails, when="failure"
    )
    mixed = step("echo mixed", fails, excused, when="always", condition="failure() && !cancelled()")
    calm = step("echo calm", excused, when="always", condition="failure()")
    goes_on = step("echo ${{ steps.excused.exit_code }}", excused)
    never = step("true", fails)

    results = run(shared_fleet, fails, excused, sees, mixed, calm, goes_on, never)

    assert ends(results) == [
        *["failed exit"] * 2,
        *["succeeded exit"] * 2,
        "succeeded skipped",
        "succeeded exit",
        "failed upstream",
    ]
    assert [results[2].get(), results[5].get()] == ["failure 3", "4"]


def test_an_outcome_that_nobody_signed_for_it_fails_the_job(shared_fleet, tmp_path):
    gate = step(until_exists(tmp_path / "go"), step="gate")
    first, other = (step(f"echo {n}", step="first") for n in (1, 2))
    users = [step("echo ${{ steps.first.stdout }}", one, gate) for one in (first, other)]
    results = submit(shared_fleet, gate, first, other, *users)
    for result in results[1:3]:
        result.wait(30)
    connection: Any = shared_fleet.relay.session().store.jobs._connection
    keys = Keys()
    signed = connection.get(keys("outcome", other.id))
    connection.set(keys("outcome", first.id), signed)
    connection.set(keys("outcome", other.id), signed.replace(b"2\n", b"3\n"))
    (tmp_path / "go").touch()

    for result in results[3:]:
        result.wait(30)

    assert ends(results[3:]) == ["failed refused"] * 2
    errors = [str(result.outcome().error) for result in results[3:]]
    assert f"signed for job {other.id}, not {first.id}" in errors[0]
    assert "signature is wrong" in errors[1]


def fanned(line: str, **fields: Any) -> tuple[Spec, Spec]:
    """Return a step that makes a list of five, and the one that becomes a job for each."""
    makes = step(f"{RELAYQ} output 'list=[1, 2, 3, \"a b\", 5]'", step="makes", **fields)
    fans = step(line, makes, step="fans", fans="x = fromJSON(steps.makes.outputs.list)")
    return makes, fans


def test_a_list_becomes_jobs_each_once_though_the_worker_is_killed(shared_fleet, tmp_path):
    fleet = shared_fleet
    ran = tmp_path / "ran"
    env = {"PYTHONPATH": fleet.environ["PYTHONPATH"]}
    line = (
        f"echo '${{{{ matrix.x }}}}' >> {ran}; {until_exists(tmp_path / 'go')}; "
        'echo "last=${{ matrix.x }}" >> $RELAYQ_OUTPUT'
    )
    makes, fans = fanned(line, payload={"env": env})
    after = step(
        "echo ${{ steps.fans.result }} ${{ steps.fans.outputs.last }} "
        "'${{ join(steps.fans.jobs.*.matrix.x, '+') }}'",
        fans,
    )
    session = fleet.relay.session()
    # As a worker would that died right after it had submitted them.
    made = Fans(session.store, session.signer, fleet.config)
    made.out(fans, [{"x": x} for x in (1, 2, 3, "a b", 5)])
    results = submit(fleet, makes, fans, after)
    until(lambda: ran.exists(), within=30, what="a job of the list")
    fleet.end_worker(signal.SIGKILL)
    fleet.start_worker()
    (tmp_path / "go").touch()

    results[2].wait(60)

    assert ends(results) == ["succeeded exit"] * 3
    assert sorted(ran.read_text().splitlines()) == ["1", "2", "3", "5", "a b"]
    assert results[2].get() == "success 5 1+2+3+a b+5"
    jobs = results[1].get()["jobs"]
    assert [one["result"] for one in jobs] == ["success"] * 5
    assert len(set(results[1].record.fanned)) == 5


def test_one_bad_item_fails_its_step_which_names_it_and_an_empty_list_is_done(shared_fleet):
    env = {"PYTHONPATH": shared_fleet.environ["PYTHONPATH"]}
    makes, fans = fanned("test '${{ matrix.x }}' != 3", payload={"env": env})
    none = step("true", makes, fans="fromJSON('[]')")
    wrong = step("true", makes, fans="steps.makes.outputs.list")

    results = run(shared_fleet, makes, fans, none, wrong)

    assert ends(results[1:]) == ["failed upstream", "succeeded exit", "failed refused"]
    outcome = results[1].outcome()
    assert outcome is not None
    bad = outcome.result["jobs"][2]["id"]
    assert outcome.error == f"1 of its 5 jobs didn't succeed: {bad} failed"
    assert results[2].get() == {"jobs": []}
