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
        self._activity = self._amount = ""
        self._since = 0.0

    def begin(self, activity: str) -> None:
        """Show a new activity."""
        self._activity, self._amount, self._since = activity, "", time.monotonic()
        self._draw()
        if threading.current_thread() is threading.main_thread():  # Others cannot set alarms.
            signal.signal(signal.SIGALRM, self._tick)
            signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def advance(self, activity: str, amount: str) -> None:
        """Show the amount done so far; begins `activity` if there is none yet."""
        if not self._activity:
            self.begin(activity)
        self._amount = amount
        self._draw()

    def end(self) -> None:
        """Erase the line, if it is shown."""
        if self._activity:
            self._activity = ""  # First, so that an alarm draws nothing.
            signal.setitimer(signal.ITIMER_REAL, 0)
            _write(b"")

    def _tick(self, number: int, frame: FrameType | None) -> None:
        if self._activity:
            self._draw()

    def _draw(self) -> None:
        seconds = int(time.monotonic() - self._since)
        parts = (self._activity, self._amount, f"{seconds} s" if seconds else "")
        _write(", ".join(filter(None, parts)).encode("utf-8", "backslashreplace"))


def _write(line: bytes) -> None:
    """Replace the line at the bottom of the terminal."""
    try:
        # A new terminal may not know its width yet.
        width = (os.get_terminal_size(2).columns or 80) - 1
        os.write(2, _ERASE + line[:width])
    except OSError:  # The terminal is gone: an alarm must not raise wherever it comes.
        return
