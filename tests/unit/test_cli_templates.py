"""`--format`: what a template may ask for, and what it shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relayq.cli import templates
from relayq.cli.templates import Template
from relayq.model.hosts import Host
from relayq.model.jobs import JobRecord, JobState, Spec

SPEC = Spec(
    "3f2a00000000",
    "run_command",
    {"cmd": ["echo", "a\nb\x1b[31m"]},
    name="nightly",
    labels=("web", "slow"),
    meta={"film": "Up"},
    note="the big one",
)
JOB = JobRecord(
    SPEC.id, SPEC.kind, JobState.FAILED, "any", priority=5, created_at=0.0, spec=SPEC, exit_code=3
)


def filled(text: str, record: JobRecord = JOB) -> str:
    return Template(text, templates.job_fields()).fill(templates.of_job(record))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.id}} {{ .state }}!", "3f2a00000000 failed!"),
        ("{{.id}}{{.id}}", "3f2a000000003f2a00000000"),
        ("{{.exit_code}}\\t{{.priority}}\\n", "3\t5\n"),
        ("{{.created_at}}", "1970-01-01T00:00:00.000Z"),
        ("[{{.host}}{{.signal}}]", "[]"),
        ("{{.name}} {{.spec.name}} {{.labels}}", "nightly nightly web,slow"),
        ("{{.meta.film}} {{.meta.none}} {{.meta}}", 'Up  {"film": "Up"}'),
        ("{{.payload.cmd}}", "echo,a b?"),
        ("{{.note}} {{.spec.note}}", " the big one"),
        ("{{.meta.film.deeper}}", ""),
        ("a { b } c", "a { b } c"),
    ],
)
def test_a_template_is_filled_with_the_fields_of_a_job(text, shown):
    assert filled(text) == shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{.nope}}", "no field nope; there are account, .*unique"),
        ("{{.spec.nope}}", "no field spec.nope"),
        ("{{.id.deeper}}", "no field id.deeper"),
        ("{{id}}", "expected a field such as {{.id}}, got {{id}}"),
        ("{{}}", "expected a field"),
        ("{{json .}}", "expected a field"),
        ("{{.id", "belong together"),
        (".id}}", "belong together"),
    ],
)
def test_a_template_that_cant_be_filled_says_why(text, said):
    with pytest.raises(ValueError, match=said):
        Template(text, templates.job_fields())


def test_a_job_whose_spec_cant_be_read_is_shown_all_the_same():
    assert filled("{{.id}} {{.name}}", replace(JOB, spec=None)) == "3f2a00000000 "


def test_a_long_command_is_shown_whole():
    long = replace(JOB, spec=replace(SPEC, payload={"cmd": "x" * 9000}))

    assert filled("{{.command}}", long) == "x" * 9000


def test_a_template_is_filled_with_the_fields_of_a_host():
    host = Host("pi4", "i", "b", 2, 0.0, True, facts={"os": "linux", "load": 0.5})
    template = Template("{{.name}} {{.online}} {{.facts.load}}", templates.host_fields())

    assert template.fill(templates.of_host(host)) == "pi4 true 0.5"
    assert set(templates.of_host(host)) == set(templates.host_fields())
