"""Groups of commands, whose help is not cut."""

from __future__ import annotations

import click


class Group(click.Group):
    """A group that lists its commands each with its whole first sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands; click would cut a sentence at the end of the line."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, each.get_short_help_str(limit=1000)) for name, each in found if each]
            )
