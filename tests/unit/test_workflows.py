"""Workflows as files say them, and everything that can be wrong with one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.errors import ConfigError, RelayqError
from relayq.model.conditions import bare, meaning, used_in
from relayq.model.workflowfiles import examine, read_text, values_of

RELEASE = """\
name: Release
on: push
env: {LEVEL: 1, V: "${{ inputs.version }}"}
inputs: {version: 1.10, dry: {type: boolean, default: true}}
defaults:
  run: {working-directory: ~/src}
jobs:
  build:
    runs-on: [self-hosted, linux]
    run: |
      make
      echo "version=1" >> $GITHUB_OUTPUT
    outputs: [version]
  test:
    needs: build
    strategy:
      matrix: {os: [linux, macos], py: [3.10, 3.11]}
      max-parallel: 2
      fail-fast: false
    run: tox -e ${{ matrix.py }} ${{ needs.build.outputs.version }}
    timeout-minutes: 1.5
    retry: {max: 2, base: 2s, cap: 5s, on: [exit, timeout]}
    continue-on-error: true
  deploy:
    needs: [test, build]
    if: ${{ success() && steps.build.outputs.version != '' }}
    agent: claude
    prompt: Deploy ${{ steps.build.stdout }}
    secrets: [TOKEN]
    beside: build
    in: [{from: build, files: "*.whl", to: dist}]
"""


def problems(text: str) -> list[str]:
    return [str(error) for error in examine(text, "w.yml")[1]]


def one(**job) -> list[str]:
    return problems(json.dumps({"jobs": {"a": {"run": "true"}, "b": {"needs": "a", **job}}}))


def test_a_file_like_githubs_is_read():
    flow = read_text(RELEASE, "release.yml")

    build, test, deploy = flow.steps.values()
    assert flow.name == "Release"
    assert flow.env == {"LEVEL": "1", "V": "${{ inputs.version }}"}
    assert flow.remarks == ["on is ignored: relayq flow run starts it, or a schedule"]
    assert build.words == ("self-hosted", "linux")
    assert build.payload == {
        "cmd": 'set -e\nmake\necho "version=1" >> $GITHUB_OUTPUT',
        "cwd": "~/src",
    }
    assert test.needs == ("build",)
    assert test.matrix.axes == {"os": ["linux", "macos"], "py": ["3.10", "3.11"]}
    assert (test.at_once, test.fails_fast, test.is_lenient) == (2, False, True)
    assert test.options == {
        "timeout": 90.0,
        "retries": 2,
        "backoff": "2s..5s",
        "retry_on": ["exit", "timeout"],
    }
    assert (deploy.kind, deploy.agent, deploy.beside) == ("run_agent", "claude", "build")
    assert deploy.options == {"secrets": ["TOKEN"]}
    assert deploy.takes == ({"from": "build", "files": "*.whl", "to": "dist"},)


def test_a_list_of_tasks_is_read():
    flow = read_text(
        json.dumps(
            {
                "id": "data-pipeline",
                "failFast": True,
                "tasks": [
                    {"id": "extract", "type": "run_command", "payload": {"cmd": "get"}},
                    {
                        "id": "load",
                        "type": "run_command",
                        "payload": {"cmd": "put"},
                        "dependsOn": ["extract"],
                        "requiredCapabilities": ["ffmpeg"],
                        "affinity": {"sameWorkerAs": "extract", "excludedWorkers": ["pi"]},
                    },
                ],
            },
            indent=2,
        ),
        "p.json",
    )

    load = flow.steps["load"]
    assert (flow.name, flow.fails_fast) == ("data-pipeline", True)
    assert (load.needs, load.beside) == (("extract",), "extract")
    assert load.options == {"excluded": ["pi"], "needs": ["ffmpeg"]}


def test_the_items_of_steps_are_one_script_that_ends_at_the_first_failure():
    flow = read_text(
        """
jobs:
  a:
    steps:
      - name: first
        run: make
        working-directory: my src
        env: {X: it's}
      - run: |
          make test
          make install
""",
        "w.yml",
    )

    assert flow.steps["a"].payload["cmd"] == (
        "set -e\n(\ncd -- 'my src'\nexport X='it'\"'\"'s'\nmake\n)\n(\nmake test\nmake install\n)"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs:\n  a:\n    run: x\n    timout: 5", "w.yml:4:5: the job a has no key 'timout'"),
        ("jobs:\n  a: {run: x}\njob: {}", "w.yml:3:1: a workflow has no key 'job'; did you mean"),
        ("jobs:\n  a: {needs: [b, c], run: x}\n  b: {run: x}", "w.yml:2:18: a names c, which is"),
        ("jobs:\n  a: {run: x, run: y}", "w.yml:2:15: 'run' stands twice in a"),
        ("jobs:\n  a: {run: [x}", "w.yml:2:14: "),
        ("jobs:\n  a b: {run: x}", "a step's id has letters"),
        ("jobs: [a]", "w.yml:1:7: jobs: expected 'key: value', got a list"),
        ("name: x", "a workflow has jobs"),
        ("jobs:\n  a: {name: x}", "the job a says nothing to run"),
        ("jobs:\n  a: {run: x, kind: y}", "has run and kind, not only one"),
        ("jobs:\n  a: {run: x, timeout-minutes: soon}", "w.yml:2:32: timeout-minutes: expected a"),
        ("jobs:\n  a: {run: x, uses: ./x.yml}", "w.yml:2:21: uses: isn't known here"),
        ("jobs:\n  a: {steps: [{uses: actions/checkout@v4}]}", "actions aren't run here"),
        ("jobs:\n  a: {steps: [{run: x, if: y}]}", "make this one a job with an if"),
        ("jobs:\n  a: {run: x, strategy: {matrix: {x: 3}}}", "the matrix's x: expected a list"),
        ("jobs:\n  a: {run: x, env: {A-B: 1}}", "a variable can't be called 'A-B'"),
        ("jobs:\n  a: {run: x, depends_on: a, needs: a}", "needs says again what depends_on says"),
        ("jobs:\n  a: {run: x, shell: bash, env: {}}\n  b: {run: x, shell: pwsh}", "not pwsh"),
        ("jobs:\n  a: {agent: claude}", "the agent of a has no prompt"),
        ("jobs: &x\n  a: *x", "it holds too much, or is too deep"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(text, said):
    assert any(said in problem for problem in problems(text)), problems(text)


def test_everything_that_is_wrong_is_said_at_once():
    assert len(problems("jobs:\n  a: {run: x, fo: 1}\n  b: {rum: x}\n  c: {run: x, retr: 1}")) == 4


def test_a_circle_is_shown_as_the_way_round():
    text = "jobs:\n  a: {needs: c, run: x}\n  b: {needs: a, run: x}\n  c: {needs: b, run: x}"

    assert problems(text) == ["w.yml:2:14: a circle: a needs c needs b needs a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run: echo ${{ ^steps.b.outputs.x }}", "no such step: b"),
        ("run: echo ${{ ^steps.other.stdout }}", "doesn't need it (needs: [first, other])"),
        ("run: echo ${{ ^steps.first.output.x }}", "(did you mean outputs?)"),
        ("run: echo ${{ ^steps.first.outputs.y }}", "declares no output 'y'; it has x"),
        ("run: echo ${{ ^inputs.versin }}", "(did you mean version?)"),
        ("run: echo ${{ inputs.version }} ${{ ^inputs.w }}", "there is version"),
        ("run: 'echo ${{ ^github.ref }}'", "no such name: github"),
        ('run: "echo ${{ ^secrets.X }}"', "secrets: [NAME] gives the command"),
        ("run: echo ${{ 1 ^+ 1 }}", "isn't expected here"),
        ("run: echo ${{ ^lenght('x') }}", "no such function: lenght"),
        ("run: echo ${{ ^failure() }}", "failure() is for if only"),
        ("run: echo ${{ ^matrix.x }}", "no such thing: matrix.x"),
        ("run: echo ${{ ^env.LEVL }}", "(did you mean LEVEL?)"),
        ("run: x\n    if: steps.first.result ^= 1", "'=' isn't expected here"),
        ("run: x\n    if: ${{ 1 == ^nosuch() }}", "no such function: nosuch"),
        ("run: x\n    timeout: '${{ ^steps.first.stdout }}'", "only known when the job runs"),
        ("run: x\n    runs-on: [a, '${{ ^needs.first.host }}']", "only known when the job runs"),
        ("run: |\n      a\n      echo ${{ 1 }} ${{ ^bad() }}", "no such function: bad"),
        ("kind: run_command\n    with: {cmd: [x, '${{ ^a }}']}", "no such name: a"),
    ],
)
def test_a_wrong_expression_is_said_with_its_line_and_column(text, said):
    head = "inputs: {version: 1}\nenv: {LEVEL: 1}\njobs:\n  first: {run: x, outputs: [x]}\n"
    whole = f"{head}  other: {{run: x}}\n  c:\n    needs: first\n    {text}\n"
    before = whole[: whole.index("^")]

    found = problems(whole.replace("^", ""))

    place = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
    assert len(found) == 1
    assert found[0].startswith(f"w.yml:{place}: ")
    assert said in found[0]


def test_files_and_hosts_of_steps_that_are_not_needed_are_refused():
    assert "doesn't need it" in one(run="x", needs=[], **{"in": [{"from": "a"}]})[0]
    assert "names x, which is no step" in one(run="x", beside="x")[0]
    assert one(run="x", beside="a") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("failure()", ("failure", None)),
        ("${{ always() }}", ("always", None)),
        ("success()", ("success", None)),
        ("!cancelled()", ("always", None)),
        ("inputs.x == 1", ("success", "inputs.x == 1")),
        ("failure() && inputs.x", ("always", "failure() && inputs.x")),
        ("cancelled()", ("always", "cancelled()")),
    ],
)
def test_an_if_says_when_a_step_runs_and_what_is_left_to_see(text, expected):
    assert meaning(bare(text)) == expected


def test_a_step_uses_the_steps_that_its_expressions_name():
    needs = ["a", "b", "c"]

    assert used_in("x ${{ steps.c.stdout }} ${{ needs.a.host }}", needs) == ["a", "c"]
    assert used_in({"k": ["${{ toJSON(steps) }}"]}, needs) == needs
    assert used_in("${{ needs.*.result }}", needs) == needs
    assert used_in("${{ matrix.x }}", needs) == []


def test_inputs_have_their_types_and_their_defaults():
    flow = read_text(
        "inputs: {v: 1.10, n: {type: number}, on: {type: boolean}, "
        "c: {options: [x, y], default: x}}\njobs: {a: {run: x}}",
        "w.yml",
    )

    assert values_of(flow, {}) == {"v": "1.10", "n": 0, "on": False, "c": "x"}
    assert values_of(flow, {"n": "2.5", "on": "yes", "c": "y"})["n"] == 2.5
    for wrong in ({"n": "x"}, {"on": "maybe"}, {"c": "z"}, {"q": "1"}):
        with pytest.raises(RelayqError):
            values_of(flow, wrong)


def test_an_input_that_must_be_given_is_asked_for():
    flow = read_text("inputs: {v: {required: true}}\njobs: {a: {run: x}}", "w.yml")

    with pytest.raises(RelayqError, match="needs the input v"):
        values_of(flow, {})


def test_githubs_manual_start_names_inputs_too():
    text = "on: {workflow_dispatch: {inputs: {v: {default: x}}}}\njobs: {a: {run: x}}"

    assert values_of(read_text(text, "w.yml"), {}) == {"v": "x"}


@given(st.text(alphabet="jobs:a {}[]run,needs&*!|>'\"\n -${}x.", max_size=200))
def test_whatever_a_file_holds_it_is_read_or_an_error_says_what_is_wrong(text):
    flow, wrong = examine(text, "w.yml")

    assert flow is not None or wrong
    assert all(isinstance(error, ConfigError) for error in wrong)
