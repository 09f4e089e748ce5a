"""Workers that are kept after an action for later ones, each for one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .protocol import Waits
from .team import Roster, Team

if TYPE_CHECKING:
    from flyte_build.runner.action import Action

    from .worker_process import WorkerProcess


class Crew(Protocol):
    """Workers of teams, which are started as they are needed, and kept."""

    def worker(self, team: Team, action: Action) -> WorkerProcess:
        """Return a worker of a team for an action. Raises `OSError` if it cannot be started."""

    def leave(self, team: Team, worker: WorkerProcess, *, has_ended: bool) -> None:
        """Take note that an action in a worker has ended, and whether the worker has, too."""

    def waits(self) -> list[Waits]:
        """Return what `tend` waits for."""

    def tend(self) -> None:
        """End the workers whose time is over."""

    def close(self) -> None:
        """Kill all workers; those that are idle may end by themselves."""


class KeptWorkers:
    """Workers that carry out one action after another; `start` returns a new one."""

    def __init__(self, start: Callable[[Action], WorkerProcess]) -> None:
        self._start = start
        self._roster: Roster[WorkerProcess] = Roster()

    def worker(self, team: Team, action: Action) -> WorkerProcess:
        """Return a worker of a team for an action. Raises `OSError` if it cannot be started."""
        while kept := self._roster.begin(team):
            if not kept.has_ended():
                return kept
            kept.dismiss()
            self._roster.lose(team)
        try:
            return self._start(action)
        except BaseException:
            self._roster.lose(team)
            raise

    def leave(self, team: Team, worker: WorkerProcess, *, has_ended: bool) -> None:
        """Take note that an action in a worker has ended, and whether the worker has, too."""
        if has_ended:
            self._roster.lose(team)
        else:
            self._roster.keep(team, worker)

    def waits(self) -> list[Waits]:
        """Return the time at which a worker is to end."""
        return [Waits(seconds=self._roster.seconds())]

    def tend(self) -> None:
        """End the workers whose time is over."""
        for worker in self._roster.over():
            worker.dismiss()

    def close(self) -> None:
        """Kill all workers; those that are idle may end by themselves."""
        self._roster.close()
