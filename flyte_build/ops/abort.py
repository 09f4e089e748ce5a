"""Ending a run that is under way, and reading along: what any process can do with a run that
another one carries out.
"""

from __future__ import annotations

from flyte_build.errors import FlyteError, NotFound, UsageError
from flyte_build.runner.abort import ask
from flyte_build.runner.history.history import History
from flyte_build.runner.history.log import Log
from flyte_build.runner.history.rows import RunRow

_ABORTS_WITHIN = 10.0  # Seconds to wait for a run that was asked to end.


def abort(history: History, name: str, reason: str) -> RunRow:
    """Ask a run to end, wait until it has, and give how it ended. Raises `NotFound`, `UsageError`
    if it had ended before.
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
            f"The run {name} was asked to end {_ABORTS_WITHIN:g} s ago, and has not ended",
            why=(
                "A task with `--local` that does not end on Ctrl-C, or runs outside of the main"
                " thread, cannot be ended from outside."
            ),
            hint="End the process that it runs in.",
        )
    return row


def open_log(history: History, name: str, attempt: int | None, follow: bool) -> Log:
    """The log of a run, for reading; with `follow` it ends when the run does. Raises `NotFound`."""
    row = history.get(name)
    try:
        return Log(
            history.run_folder(name),
            attempt,
            (lambda: history.going(name)) if follow else lambda: False,
        )
    except FileNotFoundError:
        raise NotFound(
            f"The run {name} has no log",
            why="It ran in the command's own process (`--local`), or did not start.",
        ) from None
    except LookupError:
        raise NotFound(
            f"The run {name} has no attempt {attempt}", why=f"It has had {row.attempts}."
        ) from None
