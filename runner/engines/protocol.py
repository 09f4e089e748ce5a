"""Protocol of engines, which execute actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from flyte_build.runner.action import Action
from flyte_build.runner.result import Result


class Sink(Protocol):
    """Reader of the output of tasks, which may be slow."""

    def output(self, stream: int, data: bytes) -> int:
        """Take bytes that a task wrote to a stream (1 or 2), without waiting for anything.

        Returns how many bytes were taken.
        """

    def output_descriptor(self, stream: int) -> int:
        """Return the file descriptor that is writable as soon as more bytes can be taken."""


class Event(NamedTuple):
    """End of an attempt.

    `lost` means that the place where it ran is gone, which tells nothing about the task. Only an
    engine that keeps to limits of time itself reports `timed_out`. `result` is what the worker has
    sent; otherwise it may have written one. An attempt that has not `begun` has done nothing.
    """

    action: Action
    kind: Literal["succeeded", "failed", "timed_out", "lost", "cancelled"]
    exit_code: int | None = None
    why: str = ""
    out_of_memory: bool = False
    result: Result | None = None
    has_begun: bool = True


class Waits(NamedTuple):
    """Conditions for the next event: a descriptor is ready, or a number of seconds has passed."""

    read: Sequence[int] = ()
    write: Sequence[int] = ()
    seconds: float | None = None


class Engine(Protocol):
    """Executor of attempts of actions, which does nothing but in its methods.

    An event alone never proves success; only the action's result does.
    """

    name: str
    acts_on: frozenset[str]
    """Options of a task that this engine supports; the user is warned about others."""
    runs_here: bool
    """Whether attempts run in `submit`, in this process; then interruptions reach the task."""

    def submit(self, action: Action) -> None:
        """Begin an attempt, unless it has begun already (same action, same attempt)."""

    def waits(self) -> Waits:
        """Return what `events` waits for."""

    def events(self) -> list[Event]:
        """Pass on output, and return the attempts that have ended, without waiting."""

    def cancel(self, action: Action, at_once: bool) -> None:
        """Ask the attempt and all its processes to end; kill them with `at_once`."""

    def running(self) -> list[Action]:
        """Return the attempts that have not ended."""

    def close(self) -> None:
        """Kill everything that is left."""
