"""The progress line of a terminal: the current activity, its amount, and its duration."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_ERASE = b"\r\x1b[2K"


class Progress:
    """A line on standard error that is rewritten in place, at least once a second.

    An alarm rewrites it, since a thread would interfere with the forks of a large scan.
    """

    def __init__(self) -> None:
        # Activities that are under way, with details and start times; the last one is shown.
        self._activities: dict[str, tuple[str, float]] = {}
        self._passing = ""  # An activity that ends with the next line that is printed.
        self._amount = ""
        self._is_shown = False

    def begin(self, activity: str, detail: str = "") -> None:
        """Show a new activity, and a detail of it."""
        self._activities[activity], self._amount = (detail, time.monotonic()), ""
        self._draw()
        if threading.current_thread() is threading.main_thread():  # Others cannot set alarms.
            signal.signal(signal.SIGALRM, self._tick)
            signal.setitimer(signal.ITIMER_REAL, 1, 1)

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

    def make_room(self) -> None:
        """Erase the line, so that another one can be printed; it comes back within a second."""
        self._activities.pop(self._passing, None)
        self._erase()

    def end(self) -> None:
        """Forget all activities, and erase the line if it is shown."""
        self._activities.clear()
        self._erase()

    def _erase(self) -> None:
        # The next alarm must not come before what is about to be printed.
        again = 1 if self._activities else 0
        signal.setitimer(signal.ITIMER_REAL, again, again)
        if self._is_shown:
            self._is_shown = False
            _write(b"")

    def _tick(self, number: int, frame: FrameType | None) -> None:
        if self._activities:
            self._draw()

    def _draw(self) -> None:
        activity, (detail, since) = next(reversed(self._activities.items()))
        seconds = int(time.monotonic() - since)
        parts = (activity + detail, self._amount, f"{seconds} s" if seconds else "")
        _write(", ".join(filter(None, parts)).encode("utf-8", "backslashreplace"))
        self._is_shown = True


def _write(line: bytes) -> None:
    """Replace the line at the bottom of the terminal."""
    try:
        # A new terminal may not know its width yet.
        width = (os.get_terminal_size(2).columns or 80) - 1
        os.write(2, _ERASE + line[:width])
    except OSError:  # The terminal is gone: an alarm must not raise wherever it comes.
        return
