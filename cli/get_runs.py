"""`flyte get run`."""

from __future__ import annotations

import os
from typing import Any

import click

from flyte_build.ops.stores import Stores
from flyte_build.runner.history.history import History
from flyte_build.runner.history.rows import PHASES, Filter, RunRow
from flyte_build.runner.result import Result

from .console import Console
from .listing import LIMIT, in_utc, print_values, shown_as
from .options import moment, pairs, runs
from .run_rows import action_document, cells, reason, run_document


@click.command("run")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=(
        f"Maximum number of runs, newest first (default: {LIMIT}); with NAME, of lines for actions"
        f" (default: {LIMIT} on a terminal)."
    ),
)
@click.option(
    "--in-phase",
    multiple=True,
    type=click.Choice(PHASES),
    help="Only runs in this phase (or one of them, if repeated).",
)
@click.option("--only-mine", is_flag=True, help="Only runs that you started.")
@click.option("--task-name", metavar="ENV.TASK", help="Only runs of this task.")
@click.option("--task-version", metavar="VERSION", help="Only runs of this version.")
@click.option(
    "--created-after",
    callback=moment,
    metavar="TIME",
    help="Only runs that started at this time or later.",
)
@click.option(
    "--created-before",
    callback=moment,
    metavar="TIME",
    help="Only runs that started before this time.",
)
@click.option(
    "--with-label",
    multiple=True,
    metavar="K=V",
    help="Only runs with this label (or all of them, if repeated).",
)
@in_utc
@click.option(
    "--timeline",
    is_flag=True,
    help="With NAME: show when each action waited (.) and ran (#), over the time of the run.",
)
@click.argument("name", required=False, shell_complete=runs)
@click.pass_obj
def run(console: Console, /, name: str | None, limit: int | None, **options: Any) -> None:
    """List runs, newest first, or show one with the tree of its actions.

    In the tree, many calls of the same task are one line with the number in each phase, followed by
    those that failed. `flyte get action` lists all of them.
    """
    wanted = Filter(
        phases=options["in_phase"],
        task=options["task_name"],
        version=options["task_version"],
        user=os.getuid() if options["only_mine"] else None,
        after=options["created_after"],
        before=options["created_before"],
        labels=pairs("--with-label", options["with_label"], "team=blue"),
    )
    if options["timeline"] and name is None:
        raise click.UsageError("--timeline needs the NAME of a run.")
    history = Stores(console).history
    if name is not None:
        row = history.get(name)
        if console.json:
            _print_document(console, history, row, limit)
        elif options["timeline"]:
            from .timeline import print_timeline

            print_timeline(console, history, row, limit)
        else:
            _show_run(console, history, row, options["utc"], limit)
        return
    rows = history.list(limit or LIMIT, wanted)
    if console.json:
        console.document([run_document(history, row) for row in rows])
    elif rows:
        shown = shown_as(options["utc"])
        console.table(
            ("NAME", "TASK", "PHASE", "STARTED", "SECONDS", "WHY"),
            (cells(row.name, row, shown) + [reason(row)] for row in rows),
        )
    else:
        console.line(
            "No runs match."
            if wanted != Filter()
            else "There are no runs yet. Start one with `flyte run hello`."
        )


def _print_document(console: Console, history: History, row: RunRow, limit: int | None) -> None:
    console.document(
        {
            **run_document(history, row),
            "labels": history.labels(row.name),
            "actions": [action_document(each) for each in history.actions(row.name)[:limit]],
            **_told(history.result(row.name)),
        }
    )


def _show_run(
    console: Console, history: History, row: RunRow, utc: bool, limit: int | None
) -> None:
    result, shown = history.result(row.name), shown_as(utc)
    document = run_document(history, row)
    document |= {"started": shown(row.started), "ended": row.ended and shown(row.ended)}
    for label in ("name", "task", "file", "version", "phase", "started", "ended", "url"):
        console.print(f"{label:8} {document[label] or '-'}")
    for key, value in history.labels(row.name).items():
        console.print(f"{'label':8} {key}={value}")
    if row.why:
        console.print(f"{'why':8} {row.why}")
    if result:
        print_values(console, "output", result.outputs, f"flyte -of json get io {row.name}")
    from .action_tree import print_tree

    print_tree(console, history, row, limit)


def _told(result: Result | None) -> dict[str, Any]:
    """Return the outputs or the error of a result as a JSON value."""
    if result is None:
        return {}
    return {"error": result.error.shown()} if result.error else {"outputs": dict(result.outputs)}
