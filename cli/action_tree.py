"""The tree of a run's actions: a line for each, with many calls of one task folded into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flyte_build.runner.history.rows import PHASES, ActionRow
from flyte_build.text.wording import printable

from .console import Console
from .listing import cut, print_lines, width
from .run_rows import reason, seconds

_FEW = 5  # Calls of one task that are shown one by one.
_DEEPEST = 8  # Levels that are indented.
_WIDEST = 60  # Columns of the names, at most.
_STATE = 32  # Columns that a terminal keeps for phase, seconds, and the beginning of a reason.
_FAILED = ("failed", "timed_out")
_SHORTEST = 6  # Characters of a short name, as in the output of children.


class ActionTree:
    """Actions of a run, the root first, by their parents."""

    def __init__(self, actions: Sequence[ActionRow]) -> None:
        self.root = actions[0]
        self._below: dict[str, list[ActionRow]] = {}
        for action in actions[1:]:
            self._below.setdefault(action.parent or self.root.name, []).append(action)
        self._length = _length([action.name for action in actions[1:]])
        self._failed = self._with_failures(actions)

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

    def has_failure(self, action: ActionRow) -> bool:
        """Whether an action or one below it has failed."""
        return action.name in self._failed

    def _with_failures(self, actions: Sequence[ActionRow]) -> set[str]:
        parents = {action.name: action.parent for action in actions}
        found: set[str] = set()
        for action in actions:
            name = action.name if action.phase in _FAILED else None
            while name is not None and name not in found:
                found.add(name)
                name = parents.get(name)
        return found


class Fold(NamedTuple):
    """Calls of the same task by the same parent, in the same group."""

    actions: list[ActionRow]
    hidden: int  # Actions below them that are not shown.


def folded(tree: ActionTree) -> Iterator[tuple[int, ActionRow | Fold]]:
    """Yield the lines of a tree with their depths; of a fold, the failed actions follow."""
    waiting: list[tuple[int, ActionRow | Fold]] = [(0, tree.root)]
    while waiting:
        depth, line = waiting.pop()
        yield depth, line
        if isinstance(line, Fold):
            inner: list[ActionRow | Fold] = [
                each for each in line.actions if tree.has_failure(each)
            ]
        else:
            inner = list(_folds(tree, tree.below(line)))
        waiting += [(depth + 1, each) for each in reversed(inner)]


def indent(depth: int) -> str:
    """Return the spaces before an action; deep ones are indented alike."""
    return "  " * min(depth, _DEEPEST)


def print_tree(console: Console, run: str, actions: Sequence[ActionRow], limit: int | None) -> None:
    """Print the tree of a run's actions, at most `limit` lines of it."""
    tree = ActionTree(actions)
    lines = list(folded(tree))
    names = [indent(depth) + printable(_name(tree, line)) for depth, line in lines]
    if columns := width():
        names = [cut(name, columns - _STATE) for name in names]
    widest = min(_WIDEST, max(map(len, names)))
    print_lines(
        console,
        [
            f"{name:{widest}}  {_state(line)}".rstrip()
            for name, (_, line) in zip(names, lines, strict=True)
        ],
        limit,
        f"flyte get run {run}",
    )


def _folds(tree: ActionTree, siblings: Sequence[ActionRow]) -> Iterator[ActionRow | Fold]:
    """Yield siblings in order, and each fold in the place of its first action."""
    alike: dict[tuple[str, str], list[ActionRow]] = {}
    for action in siblings:
        alike.setdefault((action.task, action.group), []).append(action)
    for action in siblings:
        found = alike[action.task, action.group]
        if len(found) <= _FEW:
            yield action
        elif found[0] is action:
            shut = (each for each in found if not tree.has_failure(each))
            yield Fold(found, sum(_count_below(tree, each) for each in shut))


def _count_below(tree: ActionTree, action: ActionRow) -> int:
    count, waiting = 0, [action]
    while waiting:
        below = tree.below(waiting.pop())
        count += len(below)
        waiting += below
    return count


def _name(tree: ActionTree, line: ActionRow | Fold) -> str:
    if isinstance(line, Fold):
        first = line.actions[0]
        return f"{len(line.actions):,} x {_task(first)}"
    return f"{tree.short(line)} {_task(line)}"


def _task(action: ActionRow) -> str:
    """Return the name of an action's task, with a group that was named by the user."""
    own = action.group and action.group != f"{action.task}_map"
    return f"{action.task} [{action.group}]" if own else action.task


def _state(line: ActionRow | Fold) -> str:
    if isinstance(line, Fold):
        phases = Counter(each.phase for each in line.actions)
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
