"""Protocol of engines, which execute actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from flyte_build.runner.action import Action

# Receives bytes that the task wrote to a stream (1 or 2), waits some seconds for a reader, and
# returns how many bytes it has passed on.
Sink = Callable[[int, bytes, float], int]


class Event(NamedTuple):
    """Outcome of an attempt.

    `lost` means that the place where it ran is gone, which tells nothing about the task.
    """

    kind: Literal["succeeded", "failed", "lost", "cancelled"]
    exit_code: int | None = None
    why: str = ""
    out_of_memory: bool = False


class Engine(Protocol):
    """Executor of attempts of actions.

    An event alone never proves success; only the action's result does.
    """

    name: str
    acts_on: frozenset[str]
    """Options of a task that this engine supports; the user is warned about others."""

    def submit(self, action: Action) -> None:
        """Begin an attempt, unless it has begun already (same action, same attempt)."""

    def wait(self, action: Action, seconds: float | None) -> Event | None:
        """Wait until the attempt has ended, at most some seconds; None means that it is running."""

    def cancel(self, action: Action, at_once: bool) -> None:
        """Ask the attempt and all its processes to end; kill them with `at_once`."""

    def running(self) -> list[Action]:
        """Return the attempts that have not ended."""
