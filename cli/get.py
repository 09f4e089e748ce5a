"""`flyte get`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import click

from flyte_build.attempts import Stores
from flyte_build.errors import NotFound
from flyte_build.runner.history import RunRow

from .console import Console


@click.group()
def get() -> None:
    """Runs and their logs, and the configuration."""


@get.command("run")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many runs, newest first.")
@click.argument("name", required=False)
@click.pass_obj
def run(console: Console, limit: int, name: str | None) -> None:
    """List the runs, newest first, or show one."""
    history = Stores(console).history
    if name is not None:
        row = history.get(name)
        result = history.result(name)
        document = {**_run(history.run_folder(name), row), "actions": [_action(row)], **result}
        if console.json:
            console.document(document)
            return
        for label in ("name", "task", "phase", "started", "ended", "url"):
            console.print(f"{label:8} {document[label] or '-'}")
        if row.why:
            console.print(f"{'why':8} {row.why}")
        console.result(
            {f"output {key}": value for key, value in result.get("outputs", {}).items()}, f"flyte -of json get run {name}", named=True
        )
        return
    rows = history.list(limit)
    if console.json:
        console.document([_run(history.run_folder(row.name), row) for row in rows])
        return
    console.table(
        ("NAME", "TASK", "PHASE", "STARTED", "SECONDS", "WHY"),
        (
            (row.name, row.task, row.phase, _time(row.started) or "", f"{row.ended - row.started:.1f}" if row.ended else "", row.why)
            for row in rows
        ),
    )


@get.command("logs")
@click.argument("name", metavar="RUN")
@click.pass_obj
def logs(console: Console, name: str) -> None:
    """Print what a run's task has printed, as it was."""
    history = Stores(console).history
    history.get(name)
    try:
        with open(f"{history.run_folder(name)}/log", "rb") as file:
            while data := file.read(1 << 20):
                sys.stdout.buffer.write(data)
    except FileNotFoundError:
        raise NotFound(f"The run {name} has no log", why="It ran in the command's own process (`--local`), or did not start.") from None
    sys.stdout.buffer.flush()


@get.command("config")
@click.pass_obj
def config(console: Console) -> None:
    """Show each setting, its value, and where that comes from: the same as `flyte config`."""
    from .config import show_settings

    show_settings(console)


def _run(folder: str, row: RunRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "task": row.task,
        "phase": row.phase,
        "started": _time(row.started),
        "ended": _time(row.ended),
        "url": f"file://{folder}",
    }


def _action(row: RunRow) -> dict[str, Any]:
    return {
        "name": "a0",
        "task": row.task,
        "parent": None,
        "phase": row.phase,
        "attempts": row.attempts,
        "cached": False,
        "started": _time(row.started),
        "ended": _time(row.ended),
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
