"""Limits of time for code in this process: a sync task is interrupted by an alarm."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from flyte_build.errors import DeadlineExceededError, MaxRuntimeExceededError, TaskTimeoutError

if TYPE_CHECKING:
    from flyte_build.declarations.spec import TaskSpec


@contextmanager
def time_limit(seconds: float | None, error: Callable[[], BaseException]) -> Iterator[None]:
    """Raise an error in the body as soon as it takes longer than some seconds (None: never).

    Limits can be nested; the alarms of an outer one go on. Other threads than the main one have no
    limits, since nothing can interrupt them.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number: int, frame: FrameType | None) -> NoReturn:
        raise error()

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, late)
    left, _ = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
    if left and left < seconds:  # The outer limit comes first.
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            rest = left - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(rest, 1e-6))


class Limit:
    """Limit of time for the attempts of a task, from now on."""

    def __init__(self, spec: TaskSpec) -> None:
        self._operational, self._began = spec.operational, time.monotonic()

    @property
    def seconds(self) -> float | None:
        """The seconds that the next attempt has, or None."""
        left = self._left()
        limits = [each for each in (self._operational.timeout, left) if each is not None]
        return min(limits) if limits else None

    def error(self) -> TaskTimeoutError:
        """Return the error for an attempt that has taken longer."""
        left, deadline = self._left(), self._operational.deadline
        if left is not None and left <= 0:
            return DeadlineExceededError(f"it did not end before its deadline of {deadline:g} s")
        timeout = self._operational.timeout
        return MaxRuntimeExceededError(f"it ran longer than its timeout of {timeout:g} s")

    async def keep(self, coroutine: Any) -> Any:
        """Await a coroutine, and raise the error if it takes longer."""
        import asyncio  # Only tasks that are async need it.

        try:
            async with asyncio.timeout(self.seconds) as limit:
                return await coroutine
        except TimeoutError:
            if limit.expired():
                raise self.error() from None
            raise

    def _left(self) -> float | None:
        deadline = self._operational.deadline
        return None if deadline is None else self._began + deadline - time.monotonic()
