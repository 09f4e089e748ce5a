"""The `process` engine: each attempt runs in a Python process, which ends with the command."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flyte_build.runner.limits import VISIBLE_GPUS

from .workers import Workers

if TYPE_CHECKING:
    from flyte_build.runner.action import Action
    from flyte_build.runner.result import Result

    from .protocol import Event, Sink
    from .worker_process import WorkerProcess


class ProcessEngine(Workers):
    """Engine that runs attempts in processes of this machine; `sink` receives the output.

    `start` returns a worker for an attempt, which may have been started early.
    """

    name = "process"
    runs_here = False
    acts_on = frozenset(("retries", "timeout", "env_vars", "resources", "secrets", "reusable"))

    def __init__(self, sink: Sink, start: Callable[[Action], WorkerProcess]) -> None:
        super().__init__(_Here(start), sink)


class _Here:
    """The place of workers that see this machine as it is."""

    def __init__(self, start: Callable[[Action], WorkerProcess]) -> None:
        self.start = start

    def prepare(self, folder: str) -> None:
        """Do nothing: a worker makes its directory."""

    def seen(self, action: Action) -> Action:
        """Return the action."""
        return action

    def advised(self, action: Action, result: Result) -> Result:
        """Return the result."""
        return result

    def explained(self, event: Event, worker: WorkerProcess) -> Event:
        """Return the event: only the exit code of a worker is known."""
        return event

    def order(self, action: Action) -> dict[str, Any]:
        """Return an order without secrets in files, which all processes would see."""
        order = {**action.order(action.folder), "files": {}, "guarded": True}
        if action.gpus:
            order["env"] = {VISIBLE_GPUS: ",".join(action.gpus), **order["env"]}
        return order
