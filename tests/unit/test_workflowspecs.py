"""A workflow's run as the specs of its jobs. Nothing is asked of a broker."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayq import Relay, RelayqError
from relayq.model.workflowfiles import read_text
from relayq.workflows import Flow
from relayq.workflowspecs import plan


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    """A client that has a configuration and no broker."""
    return Relay(home=tmp_path_factory.mktemp("home"))


def planned(relay, text, **inputs):
    return plan(relay, read_text(text, "w.yml"), inputs)


def specs_of(relay, text, **inputs):
    made = planned(relay, text, **inputs)
    assert not made.problems, made.problems
    return {spec.name: spec for spec in made.specs}


def job(relay, text, **inputs):
    """Return the spec of the job b, which needs a."""
    text = f"inputs: {{v: '1', evil: '$(x)'}}\njobs:\n  a: {{run: x}}\n  b: {{needs: a, {text}}}"
    return specs_of(relay, text, **inputs)["b"]


def test_jobs_know_each_other_before_the_first_is_queued(relay):
    made = planned(
        relay,
        """
fail_fast: true
jobs:
  build: {run: make}
  test:
    needs: build
    strategy: {matrix: {py: [3.11, 3.12, 3.13]}, max-parallel: 2}
    run: tox -e ${{ matrix.py }}
  done: {needs: [test, build], run: x, beside: build}
""",
    )
    build, *tests, done = made.specs

    assert [spec.name for spec in tests] == ["test (3.11)", "test (3.12)", "test (3.13)"]
    assert [spec.payload["cmd"] for spec in tests] == ["tox -e 3.11", "tox -e 3.12", "tox -e 3.13"]
    assert all(spec.after == (build.id,) for spec in tests)
    assert [spec.after_any for spec in tests] == [(), (), (tests[0].id,)]
    assert done.after == (*(spec.id for spec in tests), build.id)
    assert done.with_job == build.id
    assert {spec.group for spec in made.specs} == {f"flow-{made.id}"}
    assert {spec.flow for spec in made.specs} == {made.id}
    assert [halt.name for halt in made.halts] == [made.id, f"{made.id}.test"]
    assert tests[0].halts == (made.id, f"{made.id}.test")
    assert done.halts == (made.id,)
    assert made.record("me").graph["steps"]["test"]["jobs"] == [spec.id for spec in tests]


def test_a_value_never_becomes_a_part_of_a_shells_line(relay):
    harmless = job(relay, "run: 'echo ${{ inputs.v }}'")
    harmful = job(relay, "run: 'echo ${{ inputs.evil }} ${{ inputs.v }}'")
    listed = job(relay, "run: [echo, '${{ inputs.evil }}']")

    assert (harmless.payload["cmd"], harmless.is_template) == ("echo 1", False)
    assert harmful.payload["cmd"] == "echo ${{ '$(x)' }} 1"
    assert harmful.is_template
    # A program may be a shell: its worker sees to that.
    assert listed.payload["cmd"] == ["echo", "${{ '$(x)' }}"]
    assert listed.is_template


def test_what_steps_before_come_to_is_left_to_the_worker_with_the_jobs_that_it_may_read(relay):
    made = planned(
        relay,
        """
jobs:
  a: {run: x}
  m: {run: x, strategy: {matrix: {n: [1, 2]}}}
  b:
    needs: [a, m]
    env: {X: "${{ steps.m.result }}"}
    run: echo "${{ steps.a.stdout }}"
""",
    )
    a, *m, b = made.specs

    assert b.is_template
    assert b.payload["env"] == {"X": "${{ steps.m.result }}"}
    assert b.uses == {
        "a": [a.id],
        "m": [{"id": spec.id, "matrix": spec.matrix} for spec in m],
    }


@pytest.mark.parametrize(
    ("text", "when", "condition"),
    [
        ("run: x", "success", None),
        ("run: x, if: always()", "always", None),
        ("run: x, if: inputs.v == 1", "success", None),
        ("run: x, if: inputs.v == 2", "success", "false"),
        ("run: x, if: inputs.v == 1 && failure()", "failure", None),
        ("run: x, if: steps.a.stdout == inputs.v", "success", "steps.a.stdout == '1'"),
        ("run: x, if: failure() || steps.a.exit_code == 3", "always", None),
    ],
)
def test_what_is_known_of_a_condition_is_decided_at_submit(relay, text, when, condition):
    spec = job(relay, text)

    assert spec.when == when
    assert condition is None or spec.condition == condition


def test_options_and_variables_are_filled_in(relay):
    spec = specs_of(
        relay,
        "inputs: {v: '1'}\nenv: {W: w}\njobs:\n  b: {run: x, env: {A: '${{ inputs.v }}', B: b}, "
        "timeout-minutes: '${{ inputs.v }}', retry: '${{ inputs.v }}', name: 'n ${{ env.B }}', "
        "priority: high, continue-on-error: '${{ inputs.v == 1 }}'}",
    )["n b"]

    assert spec.payload["env"] == {"W": "w", "A": "1", "B": "b"}
    assert (spec.timeout, spec.retries, spec.priority, spec.is_lenient) == (60.0, 1, 8, True)


def test_variables_are_made_of_those_before_them(relay):
    spec = job(relay, "run: x, env: {A: '${{ inputs.v }}', B: '${{ env.A }}-b', A2: $A}")
    made = planned(relay, "jobs: {a: {run: x, env: {A: '${{ env.B }}', B: b}}}")

    assert spec.payload["env"] == {"A": "1", "B": "1-b", "A2": "$A"}
    assert "env.B isn't known before the job runs" in made.problems[0].message


def test_files_of_several_jobs_go_to_a_directory_each(relay):
    made = planned(
        relay,
        """
jobs:
  a: {run: x, strategy: {matrix: {n: [1, 2]}}, out: ["*.txt"]}
  b: {run: x, needs: a, in: [{from: a, to: got/}]}
  c: {run: x, needs: b, in: [{from: b, files: "*.md"}]}
""",
    )
    first, second, both, one = made.specs

    assert both.takes == (
        {"from": first.id, "files": "*", "to": "got/0"},
        {"from": second.id, "files": "*", "to": "got/1"},
    )
    assert one.takes == ({"from": both.id, "files": "*.md", "to": ""},)


def test_a_list_that_only_the_run_knows_is_left_to_the_worker(relay):
    matrix = "{x: '${{ fromJSON(steps.a.stdout) }}', y: [1, 2]}"
    text = f"strategy: {{matrix: {matrix}}}, run: 'e ${{{{ matrix.x }}}}'"
    made = planned(relay, f"jobs:\n  a: {{run: x}}\n  b: {{needs: a, {text}}}")
    whole = job(relay, "run: x, strategy: {matrix: '${{ fromJSON(steps.a.stdout) }}'}")

    assert [spec.fans for spec in made.specs[1:]] == ["x = fromJSON(steps.a.stdout)"] * 2
    assert [spec.matrix for spec in made.specs[1:]] == [{"y": 1}, {"y": 2}]
    assert made.specs[1].payload["cmd"] == "e ${{ matrix.x }}"
    assert made.specs[1].uses == {"a": [made.specs[0].id]}
    assert whole.fans == "fromJSON(steps.a.stdout)"


def test_a_list_that_an_input_has_is_known_at_submit(relay):
    matrix = "{x: '${{ fromJSON(inputs.l) }}'}"
    text = f"inputs: {{l: '[1, 2]'}}\njobs: {{b: {{run: x, strategy: {{matrix: {matrix}}}}}}}"

    assert list(specs_of(relay, text)) == ["b (1)", "b (2)"]
    assert list(specs_of(relay, text, l="[7]")) == ["b (7)"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run: x, timeout: 5x", "w.yml:4:34: a timeout: expected a duration"),
        ("kind: nokind", "w.yml:4:23: no such kind: 'nokind'"),
        ("kind: transcode, with: {inputs: [x], outpt: y}", "w.yml:4:54: transcode has no field"),
        ("run: x, with: {feeed: true}", "run_command has no field 'feeed'"),
        ("kind: transcode, with: {inputs: [x], output: y}, env: {A: b}", "takes no variables"),
        ("run: 'echo ${{ env.A }}', env: {A: '${{ steps.a.stdout }}'}", "in the command it is $A"),
        ("run: x, strategy: {matrix: {n: '${{ fromJSON(inputs.v) }}'}}", "n is no list"),
        ("run: x, in: [/nosuch/file]", "can't be taken along"),
        ("run: \"cat <<'E'\\n${{ steps.a.stdout }}\\nE\\n\"", "w.yml:4:"),
    ],
)
def test_what_a_job_can_not_be_is_said_with_its_place(relay, text, said):
    text = f"inputs: {{v: '1'}}\njobs:\n  a: {{run: x}}\n  b: {{needs: a, {text}}}"

    made = planned(relay, text)

    assert len(made.problems) == 1
    assert said in made.problems[0].message
    with pytest.raises(RelayqError):
        raise made.problems[0]


def test_a_flow_made_in_python_is_the_same_as_one_of_a_file(relay):
    made = Flow("same", relay=relay, fail_fast=True)
    build = made.add("build", "make", outputs=["v"])
    made.add("test", f"t {build.output('v')}", needs=[build], matrix={"n": [1, 2]}, if_="always()")
    text = json.dumps(
        {
            "name": "same",
            "fail_fast": True,
            "jobs": {
                "build": {"run": "make", "outputs": ["v"]},
                "test": {
                    "run": "t ${{ steps.build.outputs.v }}",
                    "needs": ["build"],
                    "strategy": {"matrix": {"n": [1, 2]}},
                    "if": "always()",
                },
            },
        }
    )

    shapes = [
        [
            (spec.name, spec.payload, spec.when, len(spec.after))
            for spec in plan(relay, one, {}).specs
        ]
        for one in (made.workflow, read_text(text, "w.yml"))
    ]

    assert shapes[0] == shapes[1]


@st.composite
def graphs(draw):
    """Steps of one or several jobs, each after any of those before it."""
    steps = {}
    for n in range(draw(st.integers(1, 10))):
        needs = draw(st.lists(st.sampled_from(sorted(steps)), max_size=4, unique=True)) if n else []
        steps[f"s{n}"] = {"run": "x", "needs": needs}
        if draw(st.booleans()):
            steps[f"s{n}"]["strategy"] = {"matrix": {"m": list(range(draw(st.integers(1, 4))))}}
    return {name: steps[name] for name in draw(st.permutations(sorted(steps)))}


@settings(max_examples=40)
@given(graphs())
def test_every_job_comes_after_all_jobs_of_the_steps_that_its_step_needs(relay, graph):
    made = planned(relay, json.dumps({"jobs": graph}))
    seen: set[str] = set()

    for spec in made.specs:
        needed = {id for need in graph[spec.step]["needs"] for id in made.jobs[need]}
        assert set(spec.after) == needed
        # Each batch that is sent names only what was sent before, or with it.
        assert needed <= seen
        seen.add(spec.id)
    assert seen == {id for ids in made.jobs.values() for id in ids}
