"""Aborting runs and actions of another process, and following their logs."""

from __future__ import annotations

import os
import time

from flyte_build.errors import FlyteError, NotFound, UsageError
from flyte_build.runner.abort import ask, ask_action
from flyte_build.runner.action import ROOT
from flyte_build.runner.history.history import History
from flyte_build.runner.history.log import Log
from flyte_build.runner.history.rows import ActionRow, RunRow

_ABORTS_WITHIN = 10.0  # Seconds to wait for the end.
_LOOK = 0.1  # Seconds between two checks for a log.


def abort(history: History, name: str, reason: str) -> RunRow:
    """Abort a run, wait until it has ended, and return its row.

    Raises `NotFound`, `UsageError` if it has ended already, and `FlyteError` if it does not end
    in time.
    """
    if not history.going(name):
        raise UsageError(
            f"The run {name} has ended already ({history.get(name).phase.replace('_', ' ')})",
            hint="There is nothing to abort.",
        )
    ask(history.run_folder(name), reason)
    row = history.wait(name, _ABORTS_WITHIN)
    if row.ended is None:
        raise FlyteError(
            f"The run {name} has not ended within {_ABORTS_WITHIN:g} s of the request to abort it",
            why=(
                "With `--local`, another process cannot end a task that ignores Ctrl-C or runs"
                " outside the main thread."
            ),
            hint="Kill the process that runs the task.",
        )
    return row


def abort_action(history: History, run: str, action: str, reason: str) -> ActionRow:
    """Abort a child with all that it has called, wait until it has ended, and return its row.

    Its caller receives `ActionAbortedError`. Raises `NotFound`, `UsageError` if it has ended
    already or cannot be aborted alone, and `FlyteError` if it does not end in time.
    """
    row = history.find_action(run, action)
    if not history.action_going(run, row.name):
        row = history.find_action(run, row.name)
        raise UsageError(
            f"The action {row.name} has ended already ({row.phase.replace('_', ' ')})",
            hint="There is nothing to abort.",
        )
    if row.engine == "local":
        raise UsageError(
            f"The action {row.name} cannot be aborted alone",
            why="With `--local`, all actions of a run share one process.",
            hint=f"Abort the whole run: `flyte abort run {run}`.",
        )
    ask_action(history.run_folder(run), row.name, reason)
    row = history.wait_for_action(run, row.name, _ABORTS_WITHIN)
    if row.ended is None:
        raise FlyteError(
            f"The action {row.name} has not ended within {_ABORTS_WITHIN:g} s of the request to"
            " abort it",
            hint=f"Abort the whole run: `flyte abort run {run}`.",
        )
    return row


def open_log(
    history: History, name: str, attempt: int | None, follow: bool, action: str = ROOT
) -> Log:
    """Open the log of an action for reading; with `follow`, it ends when the action ends.

    A child that goes on and has printed nothing is waited for then. Raises `NotFound` if there is
    no such run, attempt, or log.
    """
    row = history.find_action(name, action)
    action = row.name
    whose = f"The run {name}" if action == ROOT else f"The action {action} of the run {name}"

    def more() -> bool:
        return follow and history.action_going(name, action)

    folder = history.action_folder(name, action)
    # An empty log of a child is removed when its attempt ends, so it is not opened.
    while action != ROOT and more() and not _size(f"{folder}/log"):
        time.sleep(_LOOK)
    try:
        return Log(folder, attempt, more)
    except FileNotFoundError:
        raise NotFound(
            f"{whose} has no log",
            why="It ran in the command's own process (`--local`), or did not start."
            if action == ROOT or row.engine == "local"
            else "It has printed nothing.",
        ) from None
    except LookupError:
        raise NotFound(
            f"{whose} has no attempt {attempt}",
            why=f"Its number of attempts is {row.attempts}.",
        ) from None


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
