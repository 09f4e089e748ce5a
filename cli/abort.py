"""`flyte abort`."""

from __future__ import annotations

import click

from flyte_build.ops.abort import abort as abort_run
from flyte_build.ops.abort import abort_action
from flyte_build.ops.stores import Stores
from flyte_build.runner.action import ROOT
from flyte_build.runner.history.history import History
from flyte_build.runner.history.rows import ActionRow, RunRow

from .console import Console
from .group import Group
from .options import actions, runs_under_way


@click.group(cls=Group)
def abort() -> None:
    """Abort a run in progress or one of its actions, from any terminal."""


_reason = click.option(
    "--reason", default="", help="Reason, which the run prints and the history records."
)


@abort.command("run")
@_reason
@click.argument("run", metavar="RUN", shell_complete=runs_under_way)
@click.pass_obj
def run(console: Console, reason: str, run: str) -> None:
    """Abort a run and all processes that its task has started, and wait until it has ended."""
    _abort_run(console, Stores(console).history, run, reason)


@abort.command("action")
@_reason
@click.argument("run", metavar="RUN", shell_complete=runs_under_way)
@click.argument("action", metavar="ACTION", shell_complete=actions)
@click.pass_obj
def action(console: Console, reason: str, run: str, action: str) -> None:
    """Abort an action of a run and all that it has called, and wait until it has ended.

    Its caller receives `flyte.errors.ActionAbortedError`. ACTION is an action's name, or a
    beginning of it that no other action has. Aborting the first action, a0, aborts the run.
    """
    history = Stores(console).history
    name = history.find_action(run, action).name
    if name == ROOT:
        _abort_run(console, history, run, reason)
        return
    row = abort_action(history, run, name, reason)
    if console.json:
        console.document({"run": run, "action": name, "phase": row.phase, "why": row.why})
    else:
        _tell(console, f"The action {name} of the run {run}", row)


def _abort_run(console: Console, history: History, run: str, reason: str) -> None:
    row = abort_run(history, run, reason)
    if console.json:
        console.document({"run": run, "phase": row.phase, "why": row.why})
    else:
        _tell(console, f"The run {run}", row)


def _tell(console: Console, what: str, row: RunRow | ActionRow) -> None:
    if row.phase == "aborted":
        console.print(f"{what} was aborted.")
    else:
        console.print(f"{what} {row.phase.replace('_', ' ')} before it could be aborted.")
