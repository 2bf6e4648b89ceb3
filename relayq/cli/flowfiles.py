"""`relayq flow check` and `graph`: workflows as files, of which nothing is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from relayq.cli.options import client, complete, json_option
from relayq.cli.texts import number_of

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.model.workflows import Workflow


def _inputs(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, equals, _ in pairs if not equals or not text]:
        raise click.BadParameter(f"expected NAME=VALUE, got {wrong[0]!r}")
    return {name: value for name, _, value in pairs}


file_argument = click.argument("file", metavar="FILE", shell_complete=complete("files"))
input_option = click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_inputs,
    help="The value of one of its inputs.",
)


def read_file(file: str) -> Workflow:
    """Return the workflow of a file, checked as far as it is without a fleet."""
    from relayq.model.workflowfiles import read_text
    from relayq.workflows import text_of

    return read_text(text_of(file), file)


def tell_remarks(workflow: Workflow) -> None:
    """Say what of a file means nothing here."""
    from relayq.cli import show
    from relayq.cli.texts import inert

    for text in workflow.remarks:
        show.remark(inert(text))


@click.command("check", short_help="Say what is wrong, or draw the steps.")
@file_argument
@input_option
@json_option
@click.pass_context
def check_flow(ctx: click.Context, file: str, inputs: dict[str, str], as_json: bool) -> None:
    """Say what is wrong with a workflow, each thing with its place, or show its steps.

    Nothing is queued. Hosts are asked for only where there is a fleet.
    """
    from relayq.cli import flowviews, show
    from relayq.cli.texts import inert
    from relayq.model.workflowfiles import examine
    from relayq.workflows import text_of

    workflow, found = examine(text_of(file), file)
    problems: list[Any] = list(found)
    jobs = 0
    if workflow is not None and not problems:
        with client(starts=True) as relay:
            jobs, problems = _planned(relay, workflow, inputs)
    if as_json:
        told = [
            {"message": one.message, "place": getattr(one, "place", None), "hint": one.hint}
            for one in problems
        ]
        steps = {} if workflow is None else workflow.steps
        named = {id: list(step.needs) for id, step in steps.items()}
        remarks = [] if workflow is None else list(workflow.remarks)
        show.print_json(
            {
                "ok": not problems,
                "problems": told,
                "remarks": remarks,
                "needs": named,
                "jobs": jobs,
            }
        )
    else:
        for one in problems:
            show.remark(inert(one.message))
            if one.hint:
                show.hint(one.hint)
        if workflow is not None and not problems:
            tell_remarks(workflow)
            needs = {id: list(step.needs) for id, step in workflow.steps.items()}
            click.echo("\n".join(flowviews.drawn(needs, ())))
            count = number_of(len(workflow.steps), "step")
            click.echo(f"{file} is right: {count}, {number_of(jobs, 'job')}")
    ctx.exit(125 if problems else 0)


def _planned(relay: Relay, workflow: Workflow, inputs: dict[str, str]) -> tuple[int, list[Any]]:
    """Return how many jobs a run would be, and what is wrong; inputs that it needs are made up."""
    from relayq.workflows import planned_run

    made_up = {
        name: one.options[0] if one.options else "1"
        for name, one in workflow.inputs.items()
        if one.is_required and one.default is None
    }
    planned = planned_run(relay, workflow, {**made_up, **inputs})
    return len(planned.specs), list(planned.problems)


@click.command("graph", short_help="Draw the steps of a file or a run.")
@click.argument("what", metavar="FILE|RUN", shell_complete=complete("files"))
@click.option("--mermaid", is_flag=True, help="In Mermaid's language, for Markdown.")
@json_option
def graph_flow(what: str, mermaid: bool, as_json: bool) -> None:
    """Draw the steps of a file, or of a run with their states."""
    import os

    from relayq.cli import flowviews, show
    from relayq.flowruns import StepJob, find

    jobs: list[StepJob] = []
    if os.path.exists(what):
        needs = {id: list(step.needs) for id, step in read_file(what).steps.items()}
    else:
        with client() as relay:
            made = find(relay, what)
            needs = {id: list(found) for id, found in made.needs.items()}
            jobs = list(made.jobs())
    lines = flowviews.drawn(needs, jobs, as_mermaid=mermaid)
    if as_json:
        show.print_json({"needs": needs, "picture": lines})
    else:
        click.echo("\n".join(lines))
