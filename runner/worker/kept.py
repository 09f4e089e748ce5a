"""A worker that is kept: it carries out one order after another.

The modules that it has imported, and what they hold, stay. Variables, the working directory, signal
handlers and the context are those of each action, and the processes that an action has started end
with it. A worker in which an action has left a thread, or has closed a stream, ends.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NoReturn

from .execute import finish
from .order import carry_out, end_children, end_group, leave, send, terminated
from .process_tree import adopt_orphans
from .spawn import CONTROL

_GRACE = 5.0  # Seconds that an idle worker has to end.
_OWN_THREADS = 2  # The main one, and the one that listens.


class _Orders:
    """Orders that come while the worker is busy or idle; None is the last one."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()
        self._given, self._done = 1, 0  # The first order came before.
        _thread.start_new_thread(self._listen, ())

    def next(self) -> Mapping[str, Any] | None:
        """Wait for the next order, after another one was carried out."""
        self._done += 1
        return self._waiting.get()

    def _listen(self) -> None:
        try:
            with os.fdopen(os.dup(CONTROL), "rb") as control:
                for line in control:
                    self._given += 1
                    self._waiting.put(json.loads(line))
            if self._done == self._given:
                self._waiting.put(None)
                time.sleep(_GRACE)
        finally:  # In any case the group ends, including this process.
            end_group()


class _Process:
    """State of this process that an action may change."""

    def __init__(self) -> None:
        self._variables = dict(os.environ)
        self._handlers = {each: signal.getsignal(each) for each in signal.valid_signals()}
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        adopt_orphans()

    def restore(self) -> bool:
        """End what an action has left, and return whether another one may run."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        end_children()
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        for number, handler in self._handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        os.umask(self._umask)
        os.environ.clear()
        os.environ.update(self._variables)
        is_whole = all(stream and not stream.closed for stream in (sys.stdout, sys.stderr))
        return is_whole and len(sys._current_frames()) <= _OWN_THREADS


def serve(order: Mapping[str, Any] | None) -> NoReturn:
    """Carry out an order and all that follow, and end this process."""
    process, orders = _Process(), _Orders()
    while order:
        result = carry_out(order)
        goes_on = process.restore() and not terminated
        leave(order["folder"])
        send(result, order, ends=not goes_on)
        order = orders.next() if goes_on else None
    finish(1 if terminated else 0, then=end_group)
