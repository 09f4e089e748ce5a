"""Runs and actions of the history as JSON values, and as cells of tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flyte_build.runner.history.history import History
from flyte_build.runner.history.rows import ActionRow, RunRow, iso


def cells(name: str, row: RunRow | ActionRow, shown: Callable[[float], str]) -> list[str]:
    """Return the cells that tables of runs and of actions begin with."""
    took = f"{row.ended - row.started:.1f}" if row.ended and row.started else ""
    return [name, row.task, row.phase, shown(row.started) if row.started else "", took]


def seconds(row: ActionRow) -> float | None:
    """Return how long an action has run so far; None if it never ran."""
    return None if row.started is None else (row.ended or time.time()) - row.started


def reason(row: RunRow | ActionRow) -> str:
    """Return the first line of the error's message, or ""."""
    return row.why.partition("\n")[0].replace("\t", " ")


def run_document(history: History, row: RunRow) -> dict[str, Any]:
    """Return a run as a JSON value."""
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


def action_document(row: ActionRow) -> dict[str, Any]:
    """Return an action as a JSON value."""
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


def _times(row: RunRow | ActionRow) -> dict[str, str | None]:
    moments = {"started": row.started, "ended": row.ended}.items()
    return {name: None if moment is None else iso(moment) for name, moment in moments}
