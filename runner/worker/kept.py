"""A worker that is kept: it carries out one order after another.

The modules that it has imported, and what they hold, stay. Variables, the working directory and the
context are those of each action, and the processes that an action has started end with it.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import time
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any, NoReturn

from .execute import finish
from .main import carry_out, end_children, leave, send, terminated
from .spawn import CONTROL

_GRACE = 5.0  # Seconds that an idle worker has to end.


class _Orders:
    """Orders that come while the worker is busy or idle; None is the last one."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()
        self._is_idle = False
        _thread.start_new_thread(self._listen, ())

    def next(self) -> Mapping[str, Any] | None:
        """Wait for the next order."""
        self._is_idle = True
        order = self._waiting.get()
        self._is_idle = False
        return order

    def _listen(self) -> None:
        try:
            with os.fdopen(os.dup(CONTROL), "rb") as control:
                for line in control:
                    self._waiting.put(json.loads(line))
            if self._is_idle:
                self._waiting.put(None)
                time.sleep(_GRACE)
            end_children()
        finally:  # In any case the group ends, including this process.
            os.killpg(0, signal.SIGKILL)


def serve(order: Mapping[str, Any] | None) -> NoReturn:
    """Carry out an order and all that follow, and end this process."""
    orders, variables = _Orders(), dict(os.environ)
    while order and not terminated:
        result = carry_out(order)
        end_children()
        os.environ.clear()
        os.environ.update(variables)
        leave(order["folder"])
        send(result, order)
        order = None if terminated else orders.next()
    finish(1 if terminated else 0)
