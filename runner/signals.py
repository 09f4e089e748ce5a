"""Signals that end a command, as exceptions."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType


class Stopped(BaseException):
    """SIGTERM or SIGHUP (its name is the argument) as an exception, so that all ends in order."""


def end_in_order() -> None:
    """Raise `KeyboardInterrupt` on SIGINT, and `Stopped` on SIGTERM and SIGHUP, in the main thread.

    Whatever the parent process has ignored or blocked no longer counts: a shell starts background
    jobs with SIGINT ignored. One thing does: an ignored SIGHUP stays so, as `nohup` promises.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Stopped(signal.Signals(number).name)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
