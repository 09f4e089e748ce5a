"""`ActionPhase`: the phases of an action."""

from __future__ import annotations

from enum import Enum


class ActionPhase(str, Enum):  # noqa: UP042  # `str()` gives the name, as in Flyte 2.
    """Phase of an action."""

    QUEUED = "queued"
    WAITING_FOR_RESOURCES = "waiting_for_resources"
    INITIALIZING = "initializing"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"
    TIMED_OUT = "timed_out"
    RECOVERED = "recovered"

    @property
    def is_terminal(self) -> bool:
        """Whether the action has ended."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    (
        ActionPhase.SUCCEEDED,
        ActionPhase.FAILED,
        ActionPhase.ABORTED,
        ActionPhase.TIMED_OUT,
        ActionPhase.RECOVERED,
    )
)
