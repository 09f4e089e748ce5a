"""`flyte abort`."""

from __future__ import annotations

import click

from flyte_build.ops.abort import abort as abort_run
from flyte_build.ops.stores import Stores

from .console import Console
from .group import Group
from .options import runs_under_way


@click.group(cls=Group)
def abort() -> None:
    """Abort a run in progress, from any terminal."""


@abort.command("run")
@click.option("--reason", default="", help="Reason, which the run prints and the history records.")
@click.argument("run", metavar="RUN", shell_complete=runs_under_way)
@click.pass_obj
def run(console: Console, reason: str, run: str) -> None:
    """Abort a run and all processes that its task has started, and wait until it has ended."""
    _abort(console, run, None, reason)


@abort.command("action")
@click.option("--reason", default="", help="Reason, which the run prints and the history records.")
@click.argument("run", metavar="RUN", shell_complete=runs_under_way)
@click.argument("action", metavar="ACTION")
@click.pass_obj
def action(console: Console, reason: str, run: str, action: str) -> None:
    """Abort an action of a run. A run has a single action, so this aborts the run."""
    _abort(console, run, action, reason)


def _abort(console: Console, run: str, action: str | None, reason: str) -> None:
    history = Stores(console).history
    if action is not None:
        history.find_action(run, action)
    row = abort_run(history, run, reason)
    if console.json:
        console.document({"run": run, "phase": row.phase, "why": row.why})
    elif row.phase == "aborted":
        console.print(f"The run {run} was aborted.")
    else:
        console.print(f"The run {run} {row.phase.replace('_', ' ')} before it could be aborted.")
