"""The line at the bottom of a terminal: what is being done, how much of it, and for how long."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_ERASE = b"\r\x1b[2K"


class Progress:
    """One line on standard error, rewritten in place, and once a second by an alarm.

    A thread would be in the way of the forks of a large scan.
    """

    def __init__(self) -> None:
        self._activity = self._amount = ""
        self._since = 0.0

    def begin(self, activity: str) -> None:
        """Show what is being done from now on."""
        self._activity, self._amount, self._since = activity, "", time.monotonic()
        self._draw()
        signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def advance(self, activity: str, amount: str) -> None:
        """Show how much is done of what is being done: of `activity`, if nothing was begun."""
        if not self._activity:
            self.begin(activity)
        self._amount = amount
        self._draw()

    def end(self) -> None:
        """Erase the line, if there is one."""
        if self._activity:
            self._activity = ""  # First: an alarm draws nothing then.
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
