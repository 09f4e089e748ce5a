"""`flyte signal`: answer what a run waits for."""

from __future__ import annotations

import sys

import click

from flyte_build.errors import UsageError
from flyte_build.ops.signal import signal_condition
from flyte_build.ops.stores import Stores

from .console import Console
from .group import Group
from .options import runs_under_way


@click.group(cls=Group)
def signal() -> None:
    """Answer what a run waits for."""


@signal.command("condition")
@click.argument("run", metavar="RUN", shell_complete=runs_under_way)
@click.argument("action", metavar="ACTION")
@click.argument("value", metavar="[VALUE]", required=False)
@click.pass_obj
def condition(console: Console, run: str, action: str, value: str | None) -> None:
    """Answer the condition ACTION of RUN, given by its name or its id.

    Without VALUE, it is asked for at the terminal.
    """
    if value is None:
        if not sys.stdin.isatty():
            raise UsageError(
                "Cannot ask for the value: standard input is not a terminal",
                hint=f"Give it: flyte signal condition {run} {action} VALUE",
            )
        value = click.prompt("Value", err=True)
    history = Stores(console).history
    row, answer = signal_condition(history, run, action, str(value))
    if console.json:
        console.document({"run": run, "action": row.name, "value": answer})
    else:
        console.print(f"Answered with {answer!r}.")
