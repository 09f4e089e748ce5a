"""The timeline of a run: a bar for each action, over the time of the run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from flyte_build.runner.history.history import History
from flyte_build.runner.history.rows import ActionRow, RunRow
from flyte_build.text.wording import printable

from .action_tree import ActionTree, indent
from .console import Console
from .listing import WIDTH, cut, print_lines, width
from .run_rows import seconds

_WIDEST = 32  # Columns of the names, at most.
_NARROWEST = 10  # Columns of the bars, at least.
_QUEUED, _RUNNING = ".", "#"
Spans = Sequence[tuple[float, float | None]]
"""Start and end of each attempt; None if it runs."""


def print_timeline(console: Console, history: History, run: RunRow, limit: int | None) -> None:
    """Print the bars of a run's actions, at most `limit` of them."""
    root, *below = history.actions(run.name)
    tree = ActionTree(root, below, [action.name for action in below])
    spans = history.attempts(run.name)
    actions = list(tree.all())
    names = [f"{indent(depth)}{tree.short(each)} {each.task}" for depth, each in actions]
    names = [cut(printable(name), _WIDEST) for name in names]
    ends = [_end(each) for _, each in actions]
    label = max(map(len, names))
    bars = max(_NARROWEST, (width() or WIDTH) - label - len(max(ends, key=len)) - 4)
    scale = _Scale(run.started, run.ended or time.time(), bars)
    shown = zip(names, actions, ends, strict=True)
    print_lines(
        console,
        [
            f"{'':{label}}  {scale.axis()}",
            *(
                f"{name:{label}}  {scale.bar(each, _spans(each, spans))}  {end}"
                for name, (_, each), end in shown
            ),
        ],
        limit and limit + 1,
        f"flyte get run {run.name} --timeline",
    )


class _Scale:
    """Scale of a time between two moments, in columns."""

    def __init__(self, start: float, end: float, columns: int) -> None:
        self._start, self._seconds = start, max(end - start, 0.001)
        self._columns = columns

    def axis(self) -> str:
        """Return the line above the bars: 0, and the seconds at their end."""
        end = f"{self._seconds:.1f} s"
        return f"{'0':{self._columns - len(end)}}{end}"

    def bar(self, action: ActionRow, spans: Spans) -> str:
        """Return the bar of an action, without the time after its end."""
        cells = [" "] * self._columns
        self._fill(cells, action.queued, action.ended, _QUEUED)
        for start, end in spans:
            self._fill(cells, start, end, _RUNNING)
        return "".join(cells)

    def _fill(self, cells: list[str], start: float, end: float | None, sign: str) -> None:
        first = min(self._column(start), self._columns - 1)
        last = self._columns if end is None else max(first + 1, self._column(end))
        cells[first:last] = sign * (min(last, self._columns) - first)

    def _column(self, moment: float) -> int:
        place = (moment - self._start) / self._seconds * self._columns
        return max(0, min(self._columns, round(place)))


def _spans(action: ActionRow, spans: Mapping[str, Spans]) -> Spans:
    if action.name in spans or action.started is None:
        return spans.get(action.name, ())
    return ((action.started, action.ended),)


def _end(action: ActionRow) -> str:
    took = seconds(action)
    parts: Iterable[str] = (
        "" if took is None else f"{took:.1f} s",
        "" if action.phase == "succeeded" else action.phase.replace("_", " "),
    )
    return " ".join(filter(None, parts))
