"""The options that say where a job runs, shared by all commands that make or move jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from relayq.cli.options import complete, duration_option, size_option
from relayq.model.strategies import Strategy
from relayq.parsing import is_host_name, memory_size


def _slot_option(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if not name or not (count or "1").isdecimal():
        raise click.BadParameter(f"expected NAME=N, such as cuda=1, got {text!r}")
    return name, int(count or 1)


#: What a host must be, have and be able to do.
constraint_options = (
    click.option(
        "--on",
        multiple=True,
        metavar="HOST[,HOST]",
        shell_complete=complete("hosts"),
        help="The host: a name, several, mac*, @label; all: one job on each (default: any).",
    ),
    click.option(
        "--needs", multiple=True, metavar="CAP[,CAP]", help="What it must have, such as ffmpeg."
    ),
    click.option(
        "--not",
        "excluded",
        multiple=True,
        metavar="HOST[,HOST]",
        shell_complete=complete("hosts"),
        help="What it must not be: a name, mac*, @label.",
    ),
    click.option("--gpu", type=click.IntRange(1), metavar="N", help="So many of its GPUs."),
    click.option(
        "--slot",
        "slots",
        multiple=True,
        type=_slot_option,
        metavar="NAME=N",
        help="So many of its slots of that name, such as cuda=1.",
    ),
)

#: For a job this is its limit, too.
memory_option = click.option(
    "--memory",
    type=size_option(memory_size),
    metavar="SIZE",
    help="So much of its memory, such as 8GB.",
)

where_options = (
    *constraint_options,
    click.option(
        "--prefer",
        metavar="HOST",
        shell_complete=complete("hosts"),
        help="Wait for this host first ...",
    ),
    click.option(
        "--overflow",
        type=duration_option,
        metavar="DURATION",
        help="... and then let any that fits take it (default: 20s).",
    ),
    click.option(
        "--with",
        "with_job",
        metavar="JOB",
        shell_complete=complete("jobs"),
        help="On the host that runs or ran this job.",
    ),
    click.option(
        "--strategy",
        type=click.Choice([one.value for one in Strategy]),
        metavar="NAME",
        help=f"How one of several hosts is chosen: {', '.join(Strategy)}.",
    ),
)


def asked_where(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the client's keywords for these options, with `resources` made of two of them."""
    asked = dict(options)
    resources = dict(asked.pop("slots"))
    gpu = asked.pop("gpu")
    if gpu is not None:
        resources["gpu"] = gpu
    return {**asked, "resources": resources} if resources else asked


def means_all(asked: Mapping[str, Any]) -> bool:
    """Whether a job for each host is asked for."""
    return "all" in [word.strip() for text in asked.get("on", ()) for word in text.split(",")]


def named_host(asked: Mapping[str, Any]) -> str | None:
    """Return the one host that is asked for, None for any or several."""
    words = [word.strip() for text in asked.get("on", ()) for word in text.split(",")]
    return words[0] if len(words) == 1 and is_host_name(words[0]) else None


def shared(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    """Return a decorator that adds these options in their order."""

    def add_all(function: Any) -> Any:
        for add in reversed(options):
            function = add(function)
        return function

    return add_all
