"""Protocols of the processes that run attempts, and of the places where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from flyte_build.runner.action import Action
from flyte_build.runner.result import Result

from .protocol import Event


class WorkerProcess(Protocol):
    """A process that waits for an order, and leads a process group.

    `control` is a pipe, and `output` maps descriptors to read from to streams (1 or 2). If it
    `sends_result`, `control` is a socket on which the result comes; otherwise that is a file.
    """

    control: int
    output: dict[int, int]
    sends_result: bool
    ends_when_asked: bool
    """Whether it ends when it is asked to; a worker with several actions ends only this one."""

    @property
    def pid(self) -> int | None:
        """Its process id; None if it is not forked yet."""

    @property
    def end(self) -> int | None:
        """A descriptor that is readable when `has_ended` is to be asked; None if it has none."""

    @property
    def why(self) -> str:
        """Reason for which it is lost although its exit code is not known, or ""."""

    def learn(self, packages: Sequence[str]) -> None:
        """Take note of packages that an action has imported in it."""

    def has_ended(self) -> bool:
        """Whether it has ended; the rest of its process group is killed then."""

    def has_code(self) -> bool:
        """Whether `reap` returns the exit code, now that it has ended, or nothing ever will."""

    def reap(self) -> int | None:
        """Return the exit code of the process, which has ended; None if it is not known."""

    def dismiss(self) -> None:
        """Kill it, and forget it with its descriptors."""

    def signal(self, number: int) -> None:
        """Send a signal to the process and all its descendants."""


class Workplace(Protocol):
    """Place where workers are, and how they see actions."""

    def start(self, action: Action) -> WorkerProcess:
        """Return a worker for an attempt. Raises `OSError`."""

    def prepare(self, folder: str) -> None:
        """Make the directory of an action, if workers cannot. Raises `OSError`."""

    def seen(self, action: Action) -> Action:
        """Return an action as its worker sees it."""

    def advised(self, action: Action, result: Result) -> Result:
        """Return a result, maybe with advice that its worker could not give."""

    def explained(self, event: Event, worker: WorkerProcess) -> Event:
        """Return what became of an attempt whose worker was lost, if the place knows more."""

    def order(self, action: Action) -> dict[str, Any]:
        """Return what its worker is told for an attempt."""
