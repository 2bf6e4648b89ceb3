"""`relayq ask`, inside a job: a person is asked, and what they answer is printed.

The question is laid on the job's desk, a directory that its worker watches; no broker is needed
here, and no key. How the worker reads it is in `relayq.host.desk`.
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress

import click

from relayq import clock
from relayq.cli.interrupts import Interrupted, interruptible
from relayq.cli.options import duration_option, json_option
from relayq.errors import RelayqError, WaitTimeout

_LOOK = 0.2


@click.command()
@click.argument("question", metavar="QUESTION")
@click.option(
    "-c", "--choice", "choices", multiple=True, metavar="TEXT", help="What can be answered."
)
@click.option(
    "--timeout",
    type=duration_option,
    metavar="DURATION",
    help="Give up after so long, with 75 (default: wait).",
)
@json_option
def ask(question: str, choices: tuple[str, ...], timeout: float | None, as_json: bool) -> None:
    """Ask a person QUESTION from inside a job; prints the answer when it comes.

    `relayq review` shows it to people, `relayq answer JOB TEXT` is their word.
    """
    desk = os.environ.get("RELAYQ_DESK")
    if not desk:
        raise RelayqError(
            "this isn't inside a job, and nobody would see the question",
            hint="relayq run 'relayq ask \"...\"'",
        )
    if not question.strip():
        raise click.UsageError("the question is empty")
    from relayq.host import credentials, masking

    id = uuid.uuid4().hex
    mask = credentials.Mask({}, masking.of_job(os.environ)[1])
    lay_down(desk, id, mask.text(question), tuple(map(mask.text, choices)))
    try:
        with interruptible():
            said = _wait(desk, id, timeout)
    except (WaitTimeout, Interrupted):
        with suppress(FileNotFoundError):
            os.unlink(_path(desk, "question"))
        raise
    if as_json:
        from relayq.cli import show

        show.print_json({"answer": said["text"], "who": said.get("who", "")})
    else:
        click.echo(said["text"])


def lay_down(desk: str, id: str, question: str, choices: tuple[str, ...]) -> None:
    """Write a question whole; a desk has one at a time."""
    os.makedirs(desk, mode=0o700, exist_ok=True)
    draft = f"{_path(desk, 'question')}.{os.getpid()}"
    asked = {"id": id, "text": question, "choices": list(choices)}
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(asked, file)
    try:
        # Unlike a rename this never takes another question off the desk.
        os.link(draft, _path(desk, "question"))
    except FileExistsError:
        if not _is_answered(desk):
            raise RelayqError(
                "this job asks something already; one question at a time", hint="relayq review"
            ) from None
        os.replace(draft, _path(desk, "question"))
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def _wait(desk: str, id: str, timeout: float | None) -> dict[str, str]:
    deadline = None if timeout is None else clock.boottime() + timeout
    while True:
        said = _load(desk, "answer")
        if said is not None and said.get("id") == id:
            with suppress(FileNotFoundError):
                os.unlink(_path(desk, "question"))
            return said
        if deadline is not None and clock.boottime() >= deadline:
            raise WaitTimeout(f"nobody has answered after {timeout:g} s", hint="relayq review")
        clock.sleep(_LOOK)


def _is_answered(desk: str) -> bool:
    question, said = _load(desk, "question"), _load(desk, "answer")
    return question is None or (said is not None and said.get("id") == question.get("id"))


def _load(desk: str, name: str) -> dict[str, str] | None:
    try:
        with open(_path(desk, name), encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _path(desk: str, name: str) -> str:
    return os.path.join(desk, f"{name}.json")
