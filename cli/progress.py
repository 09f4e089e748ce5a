"""Progress at the bottom of a terminal: the current activity, or lines about the calls of tasks."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_ERASE = "\r\x1b[2K"
_UP = "\x1b[1A\x1b[2K"
_OFTEN = 0.1  # Seconds between two drawings of a view that changes.
_BRIEF = 0.02  # Seconds between two drawings of a view that output has erased.


class Progress:
    """Lines on standard error that are rewritten in place, at least once a second.

    There is one line for the current activity, and those of a `view`, if one is shown. An alarm
    rewrites them, since a thread would interfere with the forks of a large scan.
    """

    def __init__(self) -> None:
        # Activities that are under way, with details and start times; the last one is shown.
        self._activities: dict[str, tuple[str, float]] = {}
        self._passing = ""  # An activity that ends with the next line that is printed.
        self._amount = ""
        self._view: Callable[[], Sequence[str]] | None = None
        self._shown = 0  # Lines on the terminal.
        self._drawn = 0.0
        self._is_printing = self._is_inside_line = False

    def begin(self, activity: str, detail: str = "") -> None:
        """Show a new activity, and a detail of it."""
        self._activities[activity], self._amount = (detail, time.monotonic()), ""
        self._draw()
        self._set_alarm(1)

    def finish(self, activity: str) -> None:
        """Forget an activity; another one that is still under way is shown within a second."""
        if self._activities.pop(activity, None):
            self._amount = ""
            self._erase()

    def advance(self, activity: str, amount: str) -> None:
        """Show the amount done so far; begins `activity` if there is none yet."""
        if not self._activities:
            self._passing = activity
            self.begin(activity)
        self._amount = amount
        self._draw()

    def show(self, view: Callable[[], Sequence[str]]) -> None:
        """Show the lines that `view` returns, now or soon, until `end`; call it at each change."""
        self._view = view
        self._show(_OFTEN)

    def make_room(self) -> None:
        """Erase everything, so that a line can be printed; it comes back within a second."""
        self._activities.pop(self._passing, None)
        self._erase()
        self._is_inside_line = False

    @contextmanager
    def passing_on(self) -> Iterator[None]:
        """Forget all activities, and show nothing while the body prints output of tasks."""
        self._activities.clear()
        self._erase()
        self._is_printing = True
        try:
            yield
        finally:
            self._is_printing = False

    def printed(self, data: bytes) -> None:
        """Take note of output on the terminal: nothing is drawn where a line has begun."""
        if data:
            self._is_inside_line = not data.endswith(b"\n")
        if self._view:
            self._show(_BRIEF)

    def end(self) -> None:
        """Forget all activities and the view, and erase what is shown of them."""
        self._activities.clear()
        self._view = None
        self._erase()

    def _show(self, pause: float) -> None:
        """Draw, unless that was done less than `pause` seconds ago; then draw soon."""
        if time.monotonic() - self._drawn >= pause:
            self._draw()
            self._set_alarm(1)
        else:
            self._set_alarm(_OFTEN)

    def _erase(self) -> None:
        # The next alarm must not come before what is about to be printed.
        self._set_alarm(1 if self._activities or self._view else 0)
        if self._shown:
            _write(self._erasure())
            self._shown = 0

    def _erasure(self) -> str:
        return _ERASE + _UP * (self._shown - 1)

    def _set_alarm(self, seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():  # Others cannot set alarms.
            if seconds:
                signal.signal(signal.SIGALRM, self._tick)
            signal.setitimer(signal.ITIMER_REAL, seconds, 1 if seconds else 0)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        if (self._activities or self._view) and not self._is_printing:
            self._draw()

    def _draw(self) -> None:
        if self._is_inside_line:
            return
        self._is_printing = True  # The next alarm waits.
        try:
            self._rewrite()
        finally:
            self._is_printing = False

    def _rewrite(self) -> None:
        lines = list(self._view()) if self._view else []
        if self._activities:
            activity, (detail, since) = next(reversed(self._activities.items()))
            seconds = int(time.monotonic() - since)
            parts = (activity + detail, self._amount, f"{seconds} s" if seconds else "")
            lines.append(", ".join(filter(None, parts)))
        try:
            columns, rows = os.get_terminal_size(2)
        except OSError:  # The terminal is gone.
            return
        # A new terminal may not know its size yet.
        lines = [line[: (columns or 80) - 1] for line in lines[: (rows or 24) - 1]]
        before = self._erasure() if self._shown else _ERASE if lines else ""
        # Noted first, so that an interruption after the writing finds something to erase.
        self._shown, self._drawn = len(lines), time.monotonic()
        _write(before + "\n".join(lines))


def _write(text: str) -> None:
    """Write to the terminal."""
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:  # The terminal is gone: an alarm must not raise wherever it comes.
        return
