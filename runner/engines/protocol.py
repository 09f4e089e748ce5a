"""The engine protocol: what executes actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from flyte_build.runner.action import Action

# Takes bytes that the task wrote to a stream (1 or 2), waits some seconds for a reader, and says
# how many it has passed on.
Sink = Callable[[int, bytes, float], int]


class Event(NamedTuple):
    """How an attempt ended. `lost` means that the place where it ran is gone, which says nothing
    about the task.
    """

    kind: Literal["succeeded", "failed", "lost", "cancelled"]
    exit_code: int | None = None
    why: str = ""
    out_of_memory: bool = False


class Engine(Protocol):
    """Executes attempts of actions. An event alone never proves success: the action's
    result does.
    """

    name: str
    acts_on: frozenset[str]
    """The options of a task that this engine acts on; of others the user is told."""

    def submit(self, action: Action) -> None:
        """Begin an attempt; one that was begun already (same action, same attempt) is not begun
        twice.
        """

    def wait(self, action: Action, seconds: float | None) -> Event | None:
        """Wait until the attempt has ended, or for some seconds; None means that it goes on."""

    def cancel(self, action: Action, at_once: bool) -> None:
        """Ask the attempt to end (`at_once`: make it), with all that it has started."""

    def running(self) -> list[Action]:
        """The attempts that have not ended."""
