"""The tree of a run's actions: a line for each, with many calls of one task folded into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flyte_build.runner.history.history import History
from flyte_build.runner.history.rows import PHASES, ActionRow, RunRow
from flyte_build.runner.history.tree import FAILED, Alike, TreeRows
from flyte_build.text.wording import printable

from .console import Console
from .listing import cut, print_lines, width
from .run_rows import reason, seconds

FEW = 5  # Calls of one task that are shown one by one.
_DEEPEST = 8  # Levels that are indented.
_WIDEST = 60  # Columns of the names, at most.
_STATE = 32  # Columns that a terminal keeps for phase, seconds, and the beginning of a reason.
_SHORTEST = 6  # Characters of a short name, as in the output of children.


class ActionTree:
    """Actions of a run below its root, by their parents; `names` are those of all actions."""

    def __init__(self, root: ActionRow, actions: Sequence[ActionRow], names: Sequence[str]) -> None:
        self.root = root
        self._below: dict[str, list[ActionRow]] = {}
        for action in actions:
            self._below.setdefault(action.parent or root.name, []).append(action)
        self._length = _length(names)

    def short(self, action: ActionRow) -> str:
        """Return the beginning of an action's name that no other action has."""
        return action.name[: self._length]

    def below(self, action: ActionRow) -> list[ActionRow]:
        """Return the children of an action, in the order of their calls."""
        return self._below.get(action.name, [])

    def all(self) -> Iterator[tuple[int, ActionRow]]:
        """Yield all actions, each with its depth, before their children."""
        waiting = [(0, self.root)]
        while waiting:
            depth, action = waiting.pop()
            yield depth, action
            waiting += [(depth + 1, child) for child in reversed(self.below(action))]


class Fold(NamedTuple):
    """Calls of the same task by the same parent, in the same group.

    Of these, `opened` are shown, because something has failed; `hidden` actions below the others
    are not.
    """

    alike: Alike
    opened: Sequence[ActionRow]
    hidden: int


class Folds:
    """Lines of a tree in which calls that are alike are folded."""

    def __init__(self, tree: ActionTree, rows: TreeRows) -> None:
        self._tree, self._groups = tree, dict[str, list[Alike]]()
        for alike in sorted(rows.groups, key=lambda each: each.place):
            self._groups.setdefault(alike.parent, []).append(alike)
        self._failed = _with_failures(rows.actions)

    def lines(self) -> Iterator[tuple[int, ActionRow | Fold]]:
        """Yield the lines with their depths; of a fold, the actions with failures follow."""
        waiting: list[tuple[int, ActionRow | Fold]] = [(0, self._tree.root)]
        while waiting:
            depth, line = waiting.pop()
            yield depth, line
            inner = line.opened if isinstance(line, Fold) else self._below(line)
            waiting += [(depth + 1, each) for each in reversed(inner)]

    def _below(self, action: ActionRow) -> list[ActionRow | Fold]:
        """Return the lines below an action, in order; a fold has the place of its first action."""
        children: dict[tuple[str, str], list[ActionRow]] = {}
        for child in self._tree.below(action):
            children.setdefault((child.task, child.group), []).append(child)
        placed: list[tuple[int, ActionRow | Fold]] = []
        for alike in self._groups.get(action.name, ()):
            known = children.get((alike.task, alike.group), [])
            if alike.number <= FEW:
                placed += [(child.place, child) for child in known]
                continue
            opened = [child for child in known if child.name in self._failed]
            shut = (child for child in known if child.name not in self._failed)
            fold = Fold(alike, opened, sum(map(self._count_below, shut)))
            placed.append((alike.place, fold))
        return [line for _, line in sorted(placed, key=lambda each: each[0])]

    def _count_below(self, action: ActionRow) -> int:
        count, waiting = 0, [action]
        while waiting:
            parent = waiting.pop()
            count += sum(alike.number for alike in self._groups.get(parent.name, ()))
            waiting += self._tree.below(parent)
        return count


def _with_failures(actions: Sequence[ActionRow]) -> set[str]:
    """Return the names of actions that have failed, or have one below them that has."""
    parents = {action.name: action.parent for action in actions}
    found: set[str] = set()
    for action in actions:
        name = action.name if action.phase in FAILED else None
        while name is not None and name not in found:
            found.add(name)
            name = parents.get(name)
    return found


def indent(depth: int) -> str:
    """Return the spaces before an action; deep ones are indented alike."""
    return "  " * min(depth, _DEEPEST)


def print_tree(console: Console, history: History, row: RunRow, limit: int | None) -> None:
    """Print the tree of a run's actions, if there are any, at most `limit` lines of it."""
    rows = history.tree(row.name, FEW)
    if not rows.groups:
        return
    tree = ActionTree(row.root(), rows.actions, rows.names)
    lines = list(Folds(tree, rows).lines())
    names = [indent(depth) + printable(_name(tree, line)) for depth, line in lines]
    if columns := width():
        names = [cut(name, columns - _STATE) for name in names]
    widest = min(_WIDEST, max(map(len, names)))
    console.print("")
    print_lines(
        console,
        [
            f"{name:{widest}}  {_state(line)}".rstrip()
            for name, (_, line) in zip(names, lines, strict=True)
        ],
        limit,
        f"flyte get run {row.name}",
    )


def _name(tree: ActionTree, line: ActionRow | Fold) -> str:
    if isinstance(line, Fold):
        return f"{line.alike.number:,} x {_task(line.alike)}"
    return f"{tree.short(line)} {_task(line)}"


def _task(action: ActionRow | Alike) -> str:
    """Return the name of an action's task, with a group that was named by the user."""
    own = action.group and action.group != f"{action.task}_map"
    return f"{action.task} [{action.group}]" if own else action.task


def _state(line: ActionRow | Fold) -> str:
    if isinstance(line, Fold):
        phases = line.alike.phases
        counts = [f"{phases[it]:,} {it.replace('_', ' ')}" for it in PHASES if phases[it]]
        more = f" (and {line.hidden:,} below)" if line.hidden else ""
        return ", ".join(counts) + more
    took = seconds(line)
    parts = (
        f"{line.phase.replace('_', ' '):9}",
        f"{took:8.1f} s" if took is not None else " " * 10,
        f"{line.attempts} attempts" if line.attempts > 1 else "",
        "cached" if line.cached else "",
        f"recovered from {line.recovered_from}" if line.recovered_from else "",
        printable(reason(line)),
    )
    return "  ".join(filter(None, parts))


def _length(names: Sequence[str]) -> int:
    """Return the number of characters that tell all names apart."""
    length = _SHORTEST
    while len({name[:length] for name in names}) < len(names):
        length += 1
    return length
