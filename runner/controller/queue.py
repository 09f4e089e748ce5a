"""Queue of the actions that wait for slots.

Actions with the same parent and the same claim are served in the order in which they came, and
these groups in turn. A group whose first action does not fit lets others pass that need nothing of
what it lacks: a task that waits for a GPU holds back no task without one. What it lacks is reserved
for it, so nothing overtakes it forever. A group whose team has no worker left reserves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from .slots import Claim, Pool, Slots

_SCARCE = frozenset(("gpu",))  # Kept for the first in turn even while it lacks something else.
_Group = tuple[str, Claim]  # A parent's id, and what its actions take.


class Queue:
    """Ids of waiting actions."""

    def __init__(self) -> None:
        self._groups: dict[_Group, dict[str, None]] = {}

    def add(self, action: str, parent: str, claim: Claim) -> None:
        """Add an action, as the last of its group."""
        self._groups.setdefault((parent, claim), {})[action] = None

    def remove(self, action: str, parent: str, claim: Claim) -> None:
        """Remove an action, if it waits."""
        group = self._groups.get((parent, claim), {})
        group.pop(action, None)
        if not group:
            self._groups.pop((parent, claim), None)

    def place(self, pool: Pool) -> Iterator[str]:
        """Yield the actions that have a place now; each has received its slots of the pool."""
        reserved, blocked = Slots(), dict[_Group, dict[str, None]]()
        while self._groups:
            (parent, claim), actions = next(iter(self._groups.items()))
            del self._groups[parent, claim]
            if pool.is_busy(claim):
                blocked[parent, claim] = actions
                continue
            needs = pool.needs(claim)
            if lacking := needs.lacking(pool.free.minus(reserved)):
                reserved = reserved.plus(needs.only(lacking | _SCARCE))
                blocked[parent, claim] = actions
                continue
            action = next(iter(actions))
            del actions[action]
            pool.take(action, claim)
            if actions:
                self._groups[parent, claim] = actions
            yield action
        self._groups = blocked
