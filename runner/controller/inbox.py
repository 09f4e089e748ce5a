"""Requests of other threads, which a controller answers in its own."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .machine import Ended

if TYPE_CHECKING:
    from concurrent.futures import Future


class Inbox:
    """Functions to call, each with the future of its result."""

    def __init__(self) -> None:
        self._requests: deque[Callable[[], None]] = deque()
        self._lock, self._is_closed = threading.Lock(), False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        """Return the descriptor that is readable as soon as there is a request."""
        return self._read

    def ask(self, request: Callable[[], Any]) -> Future[Any]:
        """Let the controller's thread call `request`, and return its future result.

        After `close`, that is the exception `Ended`.
        """
        from concurrent.futures import Future  # Only if there is a request: it loads much.

        future: Future[Any] = Future()

        def answer() -> None:
            try:
                future.set_result(request())
            except Exception as error:
                future.set_exception(error)

        with self._lock:
            if self._is_closed:
                future.set_exception(Ended())
                return future
            self._requests.append(answer)
            try:
                os.write(self._write, b"!")
            except BlockingIOError:
                pass  # It is awake already.
        return future

    def answer(self) -> None:
        """Call everything that was requested."""
        while self._requests:
            self._requests.popleft()()

    def close(self) -> None:
        """Answer what was requested, and nothing more."""
        with self._lock:
            self._is_closed = True
        self.answer()
        os.close(self._read)
        os.close(self._write)
