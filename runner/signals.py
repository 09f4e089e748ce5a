"""Signals that end a command, as an exception."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType


class Stopped(BaseException):
    """SIGTERM or SIGHUP (its name is the argument), as an exception, so that what is under way ends
    in order.
    """


def end_in_order() -> None:
    """From now on SIGTERM and SIGHUP raise `Stopped` in the main thread; one that is ignored, as by
    nohup, stays so.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Stopped(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)
