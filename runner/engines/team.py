"""Teams of reusable environments: their workers that are busy, and those that are idle."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from flyte_build.runner.unix_socket import shut_down

if TYPE_CHECKING:
    from flyte_build.runner.action import Action

_GRACE = 1.0  # Seconds that idle workers have to end.
_TURN = 0.001  # Seconds between two looks for that.


class Team(NamedTuple):
    """A team, whose workers are alike.

    Without an action, all of them end after `idle_ttl` seconds; one ends after `scaledown_ttl` if
    there are more than `least`.
    """

    key: Hashable
    least: int
    idle_ttl: float
    scaledown_ttl: float


def team_of(action: Action) -> Team:
    """Return the team whose workers may run an action of a reusable environment."""
    call = action.call
    reuse = call.task.operational.options["reusable"]
    names = (call.deployment, call.environment, call.code, call.task.semantic.environment)
    key = (names, *sorted(call.env.items()), *action.gpus)
    return Team(key, reuse["replicas"][0], float(reuse["idle_ttl"]), float(reuse["scaledown_ttl"]))


class Idle(Protocol):
    """A worker that may be idle."""

    control: int

    def has_ended(self) -> bool:
        """Whether it has ended."""

    def dismiss(self) -> None:
        """Kill it, and forget it with its descriptors."""


W = TypeVar("W", bound=Idle)


class _State(Generic[W]):
    """State of a team: the number of its busy workers, and since when the others are idle."""

    def __init__(self, team: Team) -> None:
        self.team, self.busy = team, 0
        self.idle: deque[tuple[float, W]] = deque()  # The last one has ended an action last.

    def end(self) -> float:
        """Return the time at which the worker that has been idle longest is to end."""
        longest, last = self.idle[0][0], self.idle[-1][0]
        all = float("inf") if self.busy else last + self.team.idle_ttl
        has_surplus = self.busy + len(self.idle) > self.team.least
        return min(all, longest + self.team.scaledown_ttl if has_surplus else all)


class Roster(Generic[W]):
    """Workers of teams: how many are busy, and those that are idle."""

    def __init__(self) -> None:
        self._teams: dict[Hashable, _State[W]] = {}

    def begin(self, team: Team) -> W | None:
        """Count another busy worker, and return it: the one that was kept last, or None."""
        state = self._teams.setdefault(team.key, _State(team))
        state.busy += 1
        return state.idle.pop()[1] if state.idle else None

    def wake(self, team: Team, worker: W) -> None:
        """Count a worker that is idle as busy."""
        state = self._teams[team.key]
        state.busy += 1
        state.idle = deque(each for each in state.idle if each[1] is not worker)

    def keep(self, team: Team, worker: W) -> None:
        """Keep a worker that was busy for the team's next action."""
        self.lose(team)
        self._teams[team.key].idle.append((time.monotonic(), worker))

    def lose(self, team: Team) -> None:
        """Take note that a worker that was busy has ended."""
        self._teams[team.key].busy -= 1

    def seconds(self) -> float | None:
        """Return the seconds until `over` yields a worker, or None."""
        ends = [state.end() for state in self._teams.values() if state.idle]
        seconds = max(0.0, min(ends) - time.monotonic()) if ends else None
        return None if seconds == float("inf") else seconds

    def over(self, *, all: bool = False) -> Iterator[W]:
        """Yield the workers whose time is over, or all that are idle; they are kept no longer."""
        now = time.monotonic()
        for state in self._teams.values():
            while state.idle and (all or state.end() <= now):
                yield state.idle.popleft()[1]

    def close(self) -> None:
        """End all workers that are idle: by themselves, or else they are killed."""
        idle = [*self.over(all=True)]
        for worker in idle:
            shut_down(worker.control)
        until = time.monotonic() + _GRACE
        for worker in idle:
            while not worker.has_ended() and time.monotonic() < until:
                time.sleep(_TURN)
            worker.dismiss()
