"""Signals that end a command, as exceptions."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
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

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Stopped(signal.Signals(number).name)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
