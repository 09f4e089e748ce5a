"""Retries of requests to a registry that fails, limited by a budget of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from flyte_build.errors import RegistryUnreachable

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")
_LOOK_UPS = 5.0  # Seconds by which failures may delay all lookups of a command.
_LEAST = 1.0  # Seconds for the next byte of a registry, even if the budget is used up.
STALL = 30.0  # Seconds for the next byte of a transfer.
SPEED = 10_000  # Average bytes per second that a transfer must reach, once `STALL` has passed.
_TRANSFER = 60.0  # Seconds for which one transfer is retried.
_ATTEMPTS = 6
_LATE = 2  # Attempts of a request whose response does not arrive in time.


def time_left(began: float, count: int) -> float:
    """Return the seconds in which the next byte of a transfer must arrive.

    The transfer began at `began` (monotonic clock), and `count` bytes have arrived.
    """
    return began + STALL + count / SPEED - time.monotonic()


class Transient(RegistryUnreachable):
    """A failure that may pass; `after` is the requested delay in s (RFC 9110, Retry-After)."""

    def __init__(
        self, what: str, *, why: str = "", hint: str = "", after: float | None = None
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.after = after


class Late(Transient):
    """A response that did not arrive in time."""


class RetryBudget:
    """The time left for failing lookups of a command, shared by its repositories.

    The retried function is called with its timeout in seconds. All methods raise
    `RegistryUnreachable` in the end.
    """

    def __init__(self, seconds: float = _LOOK_UPS) -> None:
        self._left = seconds

    def look_up(self, ask: Callable[[float], T]) -> T:
        """Call `ask`, retrying it while there is time, and return its result.

        A slow response uses up the budget, too.
        """
        began, before = time.monotonic(), self._left
        try:
            return self._persist(ask, lambda: False)
        finally:
            self._left = min(
                self._left, max(0.0, before - max(0.0, time.monotonic() - began - _LEAST))
            )

    def transfer(
        self,
        move: Callable[[float], T],
        reached: Callable[[], bool],
        done: Callable[[], int] = lambda: 0,
    ) -> T:
        """Call `move`, retrying it for a minute after a failure, and return its result.

        The minute starts again whenever `done` has grown fast enough. A registry that was never
        `reached`, because it is down or stalls, costs a command no more than a lookup.
        """
        while True:
            before, began = done(), time.monotonic()
            try:
                return self._persist(move, reached)
            except Transient:
                if done() - before <= SPEED * max(0.0, time.monotonic() - began - STALL):
                    raise

    def _persist(self, call: Callable[[float], T], reached: Callable[[], bool]) -> T:
        began, failed = time.monotonic(), 0.0

        def left() -> float:
            now = time.monotonic()
            return _TRANSFER - (now - (failed or now)) if reached() else self._left - (now - began)

        def called() -> T:
            nonlocal failed
            try:
                return call(STALL if reached() else max(_LEAST, left()))
            except Transient:
                failed = failed or time.monotonic()
                raise

        try:
            return _again(called, left)
        finally:
            if failed and not reached():
                self._left = max(0.0, left())


def _again(call: Callable[[], T], left: Callable[[], float]) -> T:
    try:
        return call()
    except Transient as error:  # Only now is it worth loading the library for retries.
        from tenacity import Retrying, retry_if_exception_type

        first = error

    def again() -> T:
        nonlocal first
        if first is not None:
            # The first attempt has been made above.
            error, first = first, None  # type: ignore[assignment]
            raise error
        return call()

    def enough(state: RetryCallState) -> bool:
        is_late = isinstance(state.outcome.exception() if state.outcome else None, Late)
        return (
            state.attempt_number >= (_LATE if is_late else _ATTEMPTS)
            or state.upcoming_sleep >= left()
        )

    return Retrying(
        retry=retry_if_exception_type(Transient), stop=enough, wait=_wait, reraise=True
    )(again)


def _wait(state: RetryCallState) -> float:
    from tenacity import wait_random_exponential

    error = state.outcome.exception() if state.outcome else None
    after = error.after if isinstance(error, Transient) else None
    jittered: float = wait_random_exponential(multiplier=0.2, max=10)(state)
    return jittered if after is None else after + jittered / 10
