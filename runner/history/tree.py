"""Actions that a folded tree of a run shows, without reading all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from flyte_build.cas.database import Database
from flyte_build.runner.result import Phase

from .actions import read_actions, select_actions
from .rows import ActionRow

FAILED: Sequence[Phase] = ("failed", "timed_out")
_SEVERAL = 1000  # Groups that are read one by one; of more, all actions are read at once.


@dataclass
class Alike:
    """Calls of the same task by the same parent, in the same group: their number in each phase.

    `place` is that of the first one.
    """

    parent: str
    task: str
    group: str
    place: int
    phases: Counter[Phase] = field(default_factory=Counter)

    @property
    def number(self) -> int:
        """Their number."""
        return self.phases.total()


@dataclass(frozen=True)
class TreeRows:
    """The groups of a run's actions below the root, and the actions that may be shown.

    Of a group with more than a few, these are the ones that failed or have children. `names` are
    those of all actions.
    """

    groups: Sequence[Alike]
    actions: Sequence[ActionRow]
    names: Sequence[str]


def read_tree(database: Database, run: str, few: int) -> TreeRows:
    """Return the actions of a run for a tree in which more than a `few` alike are folded."""
    found: dict[tuple[str, str, str], Alike] = {}
    for parent, task, group, phase, number, place in database.execute(
        'SELECT parent, task, "group", phase, count(*), min(rowid) FROM actions'
        ' INDEXED BY actions_tree WHERE run=? GROUP BY parent, task, "group", phase',
        (run,),
    ):
        alike = found.setdefault((parent, task, group), Alike(parent, task, group, place))
        alike.place = min(alike.place, place)
        alike.phases[phase] += number
    names = [name for (name,) in database.execute("SELECT name FROM actions WHERE run=?", (run,))]
    groups = list(found.values())
    if len(groups) > _SEVERAL:
        return TreeRows(groups, read_actions(database, run), names)
    rows = {row.name: row for row in _shown(database, run, groups, few)}
    return TreeRows(groups, sorted(rows.values(), key=lambda row: row.place), names)


def _shown(database: Database, run: str, groups: Iterable[Alike], few: int) -> Iterable[ActionRow]:
    where = 'run=? AND parent=? AND task=? AND "group"=?'
    for alike in groups:
        values = (run, alike.parent, alike.task, alike.group)
        if alike.number <= few:
            yield from select_actions(database, where, values)
        elif any(alike.phases[phase] for phase in FAILED):
            for phase in FAILED:
                yield from select_actions(database, f"{where} AND phase=?", (*values, phase))
    for parent in {alike.parent for alike in groups}:
        yield from select_actions(database, "run=? AND name=?", (run, parent))
