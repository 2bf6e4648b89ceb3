"""Groups of commands of which some live in modules of their own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class Group(click.Group):
    """A group whose commands in `elsewhere` (module:attribute) are imported when asked for."""

    def __init__(self, *arguments: Any, elsewhere: Mapping[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._elsewhere = elsewhere

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, the group's own first."""
        return [*self.commands, *self._elsewhere]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command."""
        if cmd_name not in self._elsewhere:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._elsewhere[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command
