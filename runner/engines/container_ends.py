"""Ends of attempts in containers: their causes, and advice that only this machine can give."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flyte_build.errors import EngineUnavailable
from flyte_build.images.docker.client import asking
from flyte_build.runner.action import Action
from flyte_build.runner.result import NO_RESULT, Result
from flyte_build.runner.sources import Sources
from flyte_build.runner.worker.missing_files import hint

from .containers import CODE
from .protocol import Event

if TYPE_CHECKING:
    from docker import APIClient

# The exit code for a command that is not found (POSIX, "Exit Status for Commands"); Docker's init
# uses it, too.
_NO_PYTHON = 127


def ended(client: APIClient, container: str, action: Action, *, cancelled: bool) -> Event:
    """Wait for the end of an attempt's container, and return what became of the attempt."""
    try:
        with asking("inspect an ended container"):
            client.wait(container)
            state = client.inspect_container(container)["State"]
    except EngineUnavailable as error:
        return Event(action, "lost", why=f"its container is gone: {error.why}")
    return _event(action, state, cancelled)


def advised(action: Action, result: Result, work: str) -> Result:
    """Return a result with advice, if its error names a file that only the project has.

    The container cannot do that, since it does not see the project. `work` is the directory in
    which the task ran.
    """
    if not (result.error and action.call.code and action.call.workspace.root):
        return result
    code, error = f"{action.call.code}/code", result.error
    here = error._replace(
        message=error.message.replace(CODE, code), traceback=error.traceback.replace(CODE, code)
    )
    advice = hint(here, Sources.parse(action.document()), work)
    return result.advised(advice) if advice else result


def _event(action: Action, state: Mapping[str, Any], cancelled: bool) -> Event:
    code, memory = state["ExitCode"], action.limits.memory
    if cancelled:
        return Event(action, "cancelled", code)
    if state["OOMKilled"] and code:
        limit = (
            f"more than its {memory / 2**20:,.0f} MiB of memory"
            if memory
            else "more memory than was available"
        )
        return Event(action, "failed", code, f"it used {limit}", out_of_memory=True)
    if code == 128 + signal.SIGKILL:
        return Event(action, "lost", code, "its container was killed (SIGKILL)")
    if code == NO_RESULT:
        return Event(
            action,
            "failed",
            code,
            "its result could not be written: is the disk full, or may the image's user not write"
            " into the run's directory?",
        )
    if code == _NO_PYTHON:
        return Event(
            action,
            "failed",
            code,
            "its image has no python3 on its PATH: tasks need Python 3.11 or newer",
        )
    if code > 128:
        number = code - 128
        return Event(
            action,
            "failed",
            code,
            f"its container was ended by signal {number} ({signal.strsignal(number)})",
        )
    return Event(
        action,
        "succeeded" if code == 0 else "failed",
        code,
        "" if code == 0 else f"its container ended with exit code {code}",
    )
