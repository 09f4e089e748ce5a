"""Signals that end a command, as exceptions."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Stopped(BaseException):
    """SIGTERM or SIGHUP as an exception, so that `finally` blocks run.

    Its argument is the name of the signal.
    """


def end_in_order() -> None:
    """Make SIGINT raise `KeyboardInterrupt`, and SIGTERM and SIGHUP `Stopped`, in the main thread.

    They do so even if the parent process ignored or blocked them: a shell starts background jobs
    with SIGINT ignored. Only a SIGHUP that is ignored, as under nohup, stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise _remembered(KeyboardInterrupt())

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _remembered(Stopped(signal.Signals(number).name))

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


_received: list[BaseException] = []


def _remembered(error: BaseException) -> BaseException:
    _received.append(error)
    return error


def check() -> None:
    """Raise the exception of the first signal that has come, if any, for it may have been lost.

    Python prints and drops an exception that a handler raises in a finalizer (`object.__del__`).
    """
    if _received:
        raise _received[0]


class Interrupts:
    """Context in which signals that would raise an exception are only counted.

    `descriptor` is readable as soon as one has come. At the end of the body, the first one raises
    its exception. The third one raises it at once, in case something never returns. Signals whose
    handlers are not written in Python, and other threads, are left alone; so is everything unless
    `collects`.
    """

    def __init__(self, collects: bool) -> None:
        self._collects, self.count = collects, 0
        self.descriptor, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._first = 0

    def __enter__(self) -> Interrupts:
        if self._collects and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._count)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self.descriptor)
        os.close(self._write)
        if self._first and error[0] is None:
            self._handlers[self._first](self._first, None)

    def forget(self) -> None:
        """Let the signals that have come raise nothing."""
        self._first = 0

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._first = self._first or number
        os.write(self._write, b"!")
        if self.count > 2:
            self._handlers[number](number, frame)
