"""Workers that are kept after an action for later ones: teams of reusable environments."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from flyte_build.runner.action import Action

    from .worker_process import WorkerProcess


class Team(NamedTuple):
    """A team: its workers are alike, and each is kept for some `seconds` without an action."""

    key: Hashable
    seconds: float


def team_of(action: Action) -> Team:
    """Return the team whose workers may run an action of a reusable environment."""
    call = action.call
    reuse = call.task.operational.options["reusable"]
    names = (call.deployment, call.environment, call.code, call.task.semantic.environment)
    return Team((names, *sorted(call.env.items()), *action.gpus), float(reuse["idle_ttl"]))


class KeptWorkers:
    """Workers that are idle, by their teams."""

    def __init__(self) -> None:
        self._idle: dict[Hashable, deque[tuple[float, WorkerProcess]]] = {}

    def keep(self, team: Team, worker: WorkerProcess) -> None:
        """Keep a worker for the team's next action."""
        until = time.monotonic() + team.seconds
        self._idle.setdefault(team.key, deque()).append((until, worker))

    def take(self, team: Team) -> WorkerProcess | None:
        """Return the worker that was kept last, or None."""
        idle = self._idle.get(team.key)
        return idle.pop()[1] if idle else None

    def seconds(self) -> float | None:
        """Return the seconds until a worker is to be dismissed, or None."""
        ends = [idle[0][0] for idle in self._idle.values() if idle]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def over(self, *, all: bool = False) -> Iterator[WorkerProcess]:
        """Yield the workers whose time is over, or all of them; they are kept no longer."""
        now = time.monotonic()
        for idle in self._idle.values():
            while idle and (all or idle[0][0] <= now):
                yield idle.popleft()[1]
