"""Slots: what a machine offers to actions, and what each of them takes."""

from __future__ import annotations

from collections import Counter
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
    """Share of an action while it runs: slots, and one of `most` workers of a `team`, if any."""

    slots: Slots
    team: str = ""
    most: int = 0


class Pool:
    """Slots of a machine, and workers of teams, of which actions hold some.

    The free amounts may be negative: an action that resumes does not wait for its slots again.
    """

    def __init__(self, total: Slots) -> None:
        self.total, self.free = total, total
        self._held: dict[str, Claim] = {}
        self._busy: Counter[str] = Counter()  # Workers of each team.

    def is_busy(self, claim: Claim) -> bool:
        """Whether all workers of a claim's team are busy."""
        return bool(claim.team) and self._busy[claim.team] >= claim.most

    def take(self, holder: str, claim: Claim) -> None:
        """Give a claim to a holder that has none, even if it is not free."""
        if holder not in self._held:
            self._held[holder] = claim
            self.free = self.free.minus(claim.slots)
            self._busy[claim.team] += 1

    def release(self, holder: str) -> None:
        """Take back the claim of a holder, if it has any."""
        if (held := self._held.pop(holder, None)) is not None:
            self.free = self.free.plus(held.slots)
            self._busy[held.team] -= 1
