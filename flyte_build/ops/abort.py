"""Aborting a run of another process, and following its log."""

from __future__ import annotations

from flyte_build.errors import FlyteError, NotFound, UsageError
from flyte_build.runner.abort import ask
from flyte_build.runner.child import ROOT
from flyte_build.runner.history.history import History
from flyte_build.runner.history.log import Log
from flyte_build.runner.history.rows import RunRow

_ABORTS_WITHIN = 10.0  # Seconds to wait for the run to end.


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


def open_log(
    history: History, name: str, attempt: int | None, follow: bool, action: str = ROOT
) -> Log:
    """Open the log of an action for reading; with `follow`, it ends when the run ends.

    Raises `NotFound` if there is no such run, attempt, or log.
    """
    row = history.find_action(name, action)
    try:
        return Log(
            history.action_folder(name, action),
            attempt,
            (lambda: history.going(name)) if follow else lambda: False,
        )
    except FileNotFoundError:
        whose = f"The run {name}" if action == ROOT else f"The action {action} of the run {name}"
        raise NotFound(
            f"{whose} has no log",
            why="It ran in the command's own process (`--local`), or did not start."
            if action == ROOT
            else "It has printed nothing.",
        ) from None
    except LookupError:
        raise NotFound(
            f"The run {name} has no attempt {attempt}",
            why=f"Its number of attempts is {row.attempts}.",
        ) from None
