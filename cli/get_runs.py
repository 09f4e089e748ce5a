"""`flyte get` for runs, their actions, logs, inputs and outputs, and code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from flyte_build.cas.digest import Digest
from flyte_build.errors import NotFound
from flyte_build.ops.stores import Stores
from flyte_build.runner.child import ROOT
from flyte_build.runner.history.history import History
from flyte_build.runner.history.rows import PHASES, ActionRow, Filter, RunRow, iso
from flyte_build.runner.result import Result
from flyte_build.text.wording import plural
from flyte_build.values.type import Wires

from .console import Console
from .options import moment, pairs, runs

if TYPE_CHECKING:
    from flyte_build.runner.history.log import Log

_STREAMS = {1: "stdout", 2: "stderr"}
_utc = click.option(
    "--utc",
    is_flag=True,
    help="Show times in UTC (ISO 8601); the default unless standard output is a terminal.",
)


@click.command("run")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Maximum number of runs, newest first.",
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
@_utc
@click.argument("name", required=False, shell_complete=runs)
@click.pass_obj
def run(console: Console, /, limit: int, name: str | None, utc: bool, **options: Any) -> None:
    """List runs, newest first, or show one."""
    wanted = Filter(
        phases=options["in_phase"],
        task=options["task_name"],
        version=options["task_version"],
        user=os.getuid() if options["only_mine"] else None,
        after=options["created_after"],
        before=options["created_before"],
        labels=pairs("--with-label", options["with_label"], "team=blue"),
    )
    history = Stores(console).history
    if name is not None:
        _show_run(console, history, history.get(name), utc)
        return
    rows = history.list(limit, wanted)
    if console.json:
        console.document([_run(history, row) for row in rows])
    elif rows:
        shown = _shown_as(utc)
        cells = (
            _cells(row.name, row, shown) + [row.why.partition("\n")[0].replace("\t", " ")]
            for row in rows
        )
        console.table(("NAME", "TASK", "PHASE", "STARTED", "SECONDS", "WHY"), cells)
    else:
        console.line(
            "No runs match."
            if wanted != Filter()
            else "There are no runs yet. Start one with `flyte run hello`."
        )


def _show_run(console: Console, history: History, row: RunRow, utc: bool) -> None:
    result, labels = history.result(row.name), history.labels(row.name)
    document = {**_run(history, row), "labels": labels}
    if console.json:
        console.document(
            {
                **document,
                "actions": [_action(action) for action in history.actions(row.name)],
                **_told(result),
            }
        )
        return
    shown = _shown_as(utc)
    document |= {"started": shown(row.started), "ended": row.ended and shown(row.ended)}
    for label in ("name", "task", "file", "version", "phase", "started", "ended", "url"):
        console.print(f"{label:8} {document[label] or '-'}")
    for key, value in labels.items():
        console.print(f"{'label':8} {key}={value}")
    if row.why:
        console.print(f"{'why':8} {row.why}")
    outputs = result.outputs if result else {}
    _print_values(console, "output", outputs, f"flyte -of json get io {row.name}")


@click.command("action")
@_utc
@click.argument("run", metavar="RUN", shell_complete=runs)
@click.argument("action", metavar="[ACTION]", required=False)
@click.pass_obj
def action(console: Console, run: str, action: str | None, utc: bool) -> None:
    """List a run's actions, or show one."""
    history, shown = Stores(console).history, _shown_as(utc)
    if action is not None:
        row = history.find_action(run, action)
        document = _action(row)
        if console.json:
            console.document(document)
            return
        document |= {name: moment and shown(moment) for name, moment in _moments(row).items()}
        for label in ("name", "task", "parent", "group", "engine", "phase", "attempts", "started"):
            console.print(f"{label:8} {document[label] or '-'}")
        console.print(f"{'ended':8} {document['ended'] or '-'}")
        if row.why:
            console.print(f"{'why':8} {row.why}")
        return
    actions = history.actions(run)
    if console.json:
        console.document([_action(each) for each in actions])
    else:
        rows = (_cells(each.name, each, shown) + [str(each.attempts)] for each in actions)
        console.table(("NAME", "TASK", "PHASE", "STARTED", "SECONDS", "ATTEMPTS"), rows)


@click.command("logs")
@click.option(
    "-l",
    "--lines",
    type=click.IntRange(0),
    help="Number of lines to show, from the end (default: all).",
)
@click.option("--show-ts", is_flag=True, help="Show the time before each line.")
@click.option("--attempt", type=click.IntRange(1), help="Only the output of this attempt.")
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the run has ended.")
@click.argument("run", metavar="RUN", shell_complete=runs)
@click.argument("action", metavar="[ACTION]", required=False)
@click.pass_obj
def logs(console: Console, /, run: str, action: str | None, **options: Any) -> None:
    """Print the output of a run's task unchanged; with `-of json`, as an object for each line."""
    from flyte_build.ops.abort import open_log

    history = Stores(console).history
    name = history.find_action(run, action or ROOT).name
    log = open_log(history, run, options["attempt"], options["follow"], name)
    if options["lines"] is not None:
        log.skip_to_last(options["lines"])
    output = sys.stdout.buffer
    try:
        for chunk in _rendered(log, name, console.json, options["show_ts"]):
            output.write(chunk)
            output.flush()
    except KeyboardInterrupt:  # The usual way to stop following.
        raise click.exceptions.Exit(130) from None


def _rendered(log: Log, action: str, as_json: bool, stamped: bool) -> Iterator[bytes]:
    """Yield the bytes of a log: unchanged, with times, or as lines of JSON."""
    if as_json:
        for line in log.lines():
            document = {
                "time": iso(line.time),
                "stream": _STREAMS.get(line.stream),
                "action": action,
                "line": line.data.decode(errors="replace"),
            }
            yield json.dumps(document, ensure_ascii=False).encode() + b"\n"
    elif stamped:
        for line in log.lines():
            yield b"%s %s\n" % (iso(line.time).encode(), line.data)
    else:
        yield from log.chunks()


@click.command("io")
@click.option("-i", "--inputs-only", is_flag=True, help="Show only the inputs.")
@click.option("-o", "--outputs-only", is_flag=True, help="Show only the outputs.")
@click.argument("run", metavar="RUN", shell_complete=runs)
@click.argument("action", metavar="[ACTION]", required=False)
@click.pass_obj
def io(
    console: Console, inputs_only: bool, outputs_only: bool, run: str, action: str | None
) -> None:
    """Show the inputs and outputs of a run, or of one of its actions."""
    history = Stores(console).history
    name = history.find_action(run, action or ROOT).name
    inputs, result = history.io(run, name)
    document = {}
    if inputs_only or not outputs_only:
        document["inputs"] = inputs
    if outputs_only or not inputs_only:
        document["outputs"] = dict(result.outputs) if result else {}
    if console.json:
        console.document(document)
        return
    if not any(document.values()):
        console.line(f"The run {run} has no {' and no '.join(document)}.")
    for kind, values in document.items():
        _print_values(console, kind.removesuffix("s"), values, f"flyte -of json get io {run}")


@click.command("code")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(),
    help="Directory to write to, empty or new (default: the run's name).",
)
@click.argument("run", metavar="RUN", shell_complete=runs)
@click.argument("action", metavar="[ACTION]", required=False)
@click.pass_obj
def code(console: Console, output: str | None, run: str, action: str | None) -> None:
    """Write the files of a run's bundle to a directory."""
    from flyte_build.bundler.checkout import check_out

    stores = Stores(console)
    row = stores.history.get(run)
    if action is not None:
        stores.history.find_action(run, action)
    if not row.tree:
        raise NotFound(
            f"The run {run} has no bundle",
            why="It ran from the working tree, like all scripts and runs with `--local`.",
        )
    folder = output or run
    number = check_out(stores.cache, Digest(row.tree), folder)
    if console.json:
        console.document(
            {"run": run, "digest": row.tree, "folder": os.path.abspath(folder), "files": number}
        )
    else:
        console.print(f"{plural(number, 'file')} written to {folder}; tree {row.tree}")


def _print_values(console: Console, kind: str, values: Wires, more: str) -> None:
    console.result({f"{kind} {name}": value for name, value in values.items()}, more, named=True)


def _shown_as(utc: bool) -> Callable[[float], str]:
    """Return the function that formats times: local on a terminal, otherwise UTC."""
    if utc or not sys.stdout.isatty():
        return iso
    from flyte_build.text.units import local_time

    return local_time


def _cells(name: str, row: RunRow | ActionRow, shown: Callable[[float], str]) -> list[str]:
    took = f"{row.ended - row.started:.1f}" if row.ended and row.started else ""
    return [name, row.task, row.phase, shown(row.started) if row.started else "", took]


def _run(history: History, row: RunRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "task": row.task,
        "file": row.file,
        "version": row.version,
        "phase": row.phase,
        "why": row.why,
        **_times(row),
        "url": history.url(row.name),
    }


def _told(result: Result | None) -> dict[str, Any]:
    """Return the outputs or the error of a result as a JSON value."""
    if result is None:
        return {}
    return {"error": result.error.shown()} if result.error else {"outputs": dict(result.outputs)}


def _action(row: ActionRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "task": row.task,
        "parent": row.parent,
        "group": row.group,
        "engine": row.engine,
        "phase": row.phase,
        "why": row.why,
        "attempts": row.attempts,
        "cached": row.cached,
        "recovered_from": row.recovered_from or None,
        "queued": iso(row.queued),
        **_times(row),
    }


def _moments(row: RunRow | ActionRow) -> dict[str, float | None]:
    return {"started": row.started, "ended": row.ended}


def _times(row: RunRow | ActionRow) -> dict[str, str | None]:
    moments = _moments(row).items()
    return {name: None if moment is None else iso(moment) for name, moment in moments}
