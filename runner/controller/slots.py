"""Slots: what a machine offers to actions, and what each of them takes."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple


class Slots(NamedTuple):
    """Amounts of what actions share: processors, bytes of memory, GPUs, and actions at once."""

    cpu: float = 0.0
    memory: float = 0.0
    gpu: float = 0.0
    actions: float = 0.0

    def plus(self, other: Slots) -> Slots:
        """Return the sums."""
        return Slots(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: Slots) -> Slots:
        """Return the differences, which may be negative."""
        return Slots(*(a - b for a, b in zip(self, other, strict=True)))

    def capped(self, total: Slots) -> Slots:
        """Return these amounts, each at most that in `total`."""
        return Slots(*map(min, self, total))

    def lacking(self, free: Slots) -> frozenset[str]:
        """Return the names of what is needed here, but not free in a sufficient amount."""
        return frozenset(
            name
            for name, need, rest in zip(self._fields, self, free, strict=True)
            if need and need > rest + 1e-9  # Sums of fractions of processors are inexact.
        )

    def only(self, names: frozenset[str]) -> Slots:
        """Return the amounts under `names`, and 0 for the others."""
        return Slots(
            *(each if name in names else 0 for name, each in zip(self._fields, self, strict=True))
        )


class Claim(NamedTuple):
    """Share of an action while it runs: slots, and a seat in one of `most` workers of a `team`.

    A worker takes its slots once for all of its `seats`. Without a team, "", there is no worker to
    share.
    """

    slots: Slots
    team: str = ""
    most: int = 0
    seats: int = 1

    def alone(self) -> Claim:
        """Return the claim of a worker that is not shared, beside those of the team."""
        return self._replace(team=f"{self.team} alone", seats=1) if self.seats > 1 else self


class _Held(NamedTuple):
    """Share that a holder has: its own slots, and the number of its worker (0: none)."""

    claim: Claim
    slots: Slots
    worker: int


class _Worker:
    """Worker of a team: how many actions it has, and what it has taken for all of them."""

    def __init__(self) -> None:
        self.actions, self.slots = 0, Slots()


class Pool:
    """Slots of a machine, and workers of teams, of which actions hold some.

    The free amounts may be negative: an action that resumes does not wait for its slots again.
    """

    def __init__(self, total: Slots) -> None:
        self.total, self.free = total, total
        self._held: dict[str, _Held] = {}
        self._seats: dict[str, int] = {}  # Of holders that may come back to their worker.
        self._busy: Counter[str] = Counter()  # Actions of each team.
        self._workers: defaultdict[str, dict[int, _Worker]] = defaultdict(dict)

    def is_busy(self, claim: Claim) -> bool:
        """Whether all seats of a claim's team are taken."""
        return bool(claim.team) and self._busy[claim.team] >= claim.most * claim.seats

    def needs(self, claim: Claim) -> Slots:
        """Return what a claim takes now: little, if a worker that has its slots has a seat."""
        return _own(claim.slots) if self._joined(claim) else claim.slots

    def take(self, holder: str, claim: Claim) -> None:
        """Give a claim to a holder that has none, even if it is not free."""
        if holder in self._held:
            return
        number = self._sit(holder, claim) if claim.seats > 1 else 0
        slots = _own(claim.slots) if number else claim.slots
        self._held[holder] = _Held(claim, slots, number)
        self.free = self.free.minus(slots)
        self._busy[claim.team] += 1

    def worker(self, holder: str) -> int:
        """Return the number of the worker, from 1, in which a holder has a seat; 0 without one."""
        return self._seats.get(holder, 0)

    def release(self, holder: str) -> None:
        """Take back the claim of a holder, if it has any; it may come back to its worker."""
        if (held := self._held.pop(holder, None)) is None:
            return
        self.free = self.free.plus(held.slots)
        self._busy[held.claim.team] -= 1
        if held.worker:
            worker = self._workers[held.claim.team][held.worker]
            worker.actions -= 1
            if not worker.actions:
                self.free = self.free.plus(worker.slots)

    def leave(self, holder: str) -> None:
        """Take back the claim of a holder that does not come back."""
        self.release(holder)
        self._seats.pop(holder, None)

    def _joined(self, claim: Claim) -> int:
        """Return the number of the fullest worker that has taken its slots, and a seat; or 0."""
        fitting = (
            (worker.actions, -number)
            for number, worker in self._workers[claim.team].items()
            if 0 < worker.actions < claim.seats
        )
        return -max(fitting, default=(0, 0))[1] if claim.seats > 1 else 0

    def _sit(self, holder: str, claim: Claim) -> int:
        """Give a holder a seat, and return the number of its worker."""
        workers = self._workers[claim.team]
        number = self._seats.get(holder) or self._joined(claim)
        if not number:
            idle = (each for each in range(1, claim.most + 1) if not _is_busy(workers.get(each)))
            number = next(idle, 1)
        worker = workers.setdefault(number, _Worker())
        if not worker.actions:
            worker.slots = claim.slots.minus(_own(claim.slots))
            self.free = self.free.minus(worker.slots)
        worker.actions += 1
        self._seats[holder] = number
        return number


def _own(slots: Slots) -> Slots:
    """Return the amounts of what each action takes itself, also in a worker with others."""
    return Slots(actions=slots.actions)


def _is_busy(worker: _Worker | None) -> bool:
    return worker is not None and worker.actions > 0
