"""`flyte get action`."""

from __future__ import annotations

import click

from flyte_build.ops.stores import Stores
from flyte_build.runner.history.rows import ActionRow

from .console import Console
from .listing import in_utc, shown_as
from .options import actions, runs
from .run_rows import action_document, cells, reason

_COLUMNS = ("NAME", "TASK", "PHASE", "STARTED", "SECONDS", "ATTEMPTS", "PARENT", "WHY")
_SHOWN = ("name", "task", "parent", "group", "engine", "phase", "attempts")


@click.command("action")
@in_utc
@click.argument("run", metavar="RUN", shell_complete=runs)
@click.argument("action", metavar="[ACTION]", required=False, shell_complete=actions)
@click.pass_obj
def action(console: Console, run: str, action: str | None, utc: bool) -> None:
    """List a run's actions, or show one.

    ACTION is an action's name, or a beginning of it that no other action has.
    """
    history, shown = Stores(console).history, shown_as(utc)
    if action is not None:
        row = history.find_action(run, action)
        if console.json:
            console.document(action_document(row))
        else:
            _show(console, row, utc)
        return
    rows = history.actions(run)
    if console.json:
        console.document([action_document(each) for each in rows])
    else:
        console.table(
            _COLUMNS,
            (
                [
                    *cells(each.name, each, shown),
                    str(each.attempts),
                    each.parent or "",
                    reason(each),
                ]
                for each in rows
            ),
        )


def _show(console: Console, row: ActionRow, utc: bool) -> None:
    document, shown = action_document(row), shown_as(utc)
    for label in _SHOWN:
        console.print(f"{label:8} {document[label] or '-'}")
    for label, moment in (("queued", row.queued), ("started", row.started), ("ended", row.ended)):
        console.print(f"{label:8} {shown(moment) if moment else '-'}")
    if row.why:
        console.print(f"{'why':8} {row.why}")
