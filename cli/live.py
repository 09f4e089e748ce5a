"""View of a run's calls while it goes on: lines for groups of them, and for those that run."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flyte_build.runner.action import CONDITION, label
from flyte_build.text.wording import printable

from .progress import Progress

if TYPE_CHECKING:
    from flyte_build.runner.reporter import ActionChange

_GROUPS = 4  # Lines for groups, at most.
_LINES = 10  # Lines, at most.
_BAR = 20  # Columns of a bar.
_FAILURES = 10  # Failures of a group that are printed on a terminal.
_FAILED = ("failed", "timed_out")


@dataclass(eq=False)
class _Group:
    """Calls of one task, in a group of one name."""

    name: str
    phases: Counter[str] = field(default_factory=Counter)

    @property
    def in_flight(self) -> int:
        """Number of calls that wait or run."""
        return self.phases["queued"] + self.phases["running"]

    @property
    def is_shown(self) -> bool:
        """Whether there are several calls, and some of them have not ended."""
        return self.in_flight > 0 and self.phases.total() > 1

    def line(self) -> str:
        """Return the name, a bar, and the number of calls in each phase."""
        total = self.phases.total()
        done = total - self.in_flight
        failed = sum(self.phases[phase] for phase in _FAILED)
        bar = f"{'#' * (_BAR * done // total):.<{_BAR}}"
        more = f", {failed:,} failed" if failed else ""
        return (
            f"{self.name}  [{bar}]  {done:,} of {total:,} done,"
            f" {self.phases['running']:,} running{more}"
        )


@dataclass(eq=False)
class _Calling:
    """A call that has not ended: its name, its group, and since when it runs (None: it waits)."""

    name: str
    parent: str
    group: _Group
    phase: str = ""
    since: float | None = None
    calls: int = 0  # Those it has made that have not ended.


class LiveCalls:
    """Calls of a run; failures are printed as lasting lines, the rest is shown as progress.

    `print_line` prints a line, given the word that it begins with and the rest. `progress` is None
    if standard error is not a terminal.
    """

    def __init__(self, print_line: Callable[[str, str], None], progress: Progress | None) -> None:
        self._print_line, self._progress = print_line, progress
        self._groups: dict[tuple[str, str], _Group] = {}
        self._calls: dict[str, _Calling] = {}
        self._conditions: set[str] = set()  # Those that wait for an answer.

    def change(self, change: ActionChange) -> None:
        """Take note of a change."""
        key = (change.task, change.group)
        if key not in self._groups:
            self._groups[key] = _Group(printable(change.group or change.task))
        group = self._groups[key]
        if change.phase in ("queued", "running"):
            self._go_on(change, group)
        else:
            self._end(change, group)
        if change.task.startswith(f"{CONDITION}."):
            self._conditions.discard(change.id)
            if change.phase == "running":
                self._conditions.add(change.id)
        if self._progress:
            self._progress.show(self.lines)

    def lines(self) -> list[str]:
        """Return the lines that show the calls that have not ended.

        There are none while the user may be typing the answer to a condition.
        """
        if self._conditions and os.isatty(0):
            return []
        groups = [each for each in self._groups.values() if each.is_shown]
        lines = [group.line() for group in groups[-_GROUPS:]]
        if len(groups) > _GROUPS:
            lines.insert(0, f"... and {len(groups) - _GROUPS:,} more groups")
        # A call that waits for its own calls tells less than they do.
        running = [each for each in self._calls.values() if each.since and not each.calls]
        left = _LINES - len(lines)
        shown = running if len(running) <= left else running[: left - 1]
        lines += _running(shown)
        if len(shown) < len(running):
            lines.append(f"  ... and {len(running) - len(shown):,} more run")
        return lines

    def _go_on(self, change: ActionChange, group: _Group) -> None:
        call = self._calls.get(change.id)
        if call is None:
            name = label(change.task.rpartition(".")[2], change.id)
            call = self._calls[change.id] = _Calling(printable(name), change.parent, group)
            if above := self._calls.get(change.parent):
                above.calls += 1
        if call.phase:
            group.phases[call.phase] -= 1
        group.phases[change.phase] += 1
        call.phase = change.phase
        call.since = time.monotonic() if change.phase == "running" else None

    def _end(self, change: ActionChange, group: _Group) -> None:
        if call := self._calls.pop(change.id, None):
            group.phases[call.phase] -= 1
            if above := self._calls.get(call.parent):
                above.calls -= 1
        group.phases[change.phase] += 1
        if change.phase not in _FAILED:
            return
        failures = sum(group.phases[phase] for phase in _FAILED)
        if self._progress is None or failures <= _FAILURES:
            word = change.phase.replace("_", " ")
            name = label(change.task.rpartition(".")[2], change.id)
            self._print_line(word, f"{printable(name)}: {printable(change.why)}")
            if self._progress and failures == _FAILURES:
                self._print_line(word, f"{group.name}: from here on, failures are only counted")


def _running(calls: Iterable[_Calling]) -> list[str]:
    now = time.monotonic()
    return [f"  {call.name}  {now - (call.since or now):.0f} s" for call in calls]
