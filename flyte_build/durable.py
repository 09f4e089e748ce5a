"""`flyte.durable`: clocks whose readings a run remembers, so that retries and recoveries agree.

Each function has a form `.aio` for coroutines. Outside of a run, they are the plain ones.
"""

from __future__ import annotations

import asyncio
import time as clock
from datetime import datetime

from flyte_build.declarations.trace import trace


@trace
def _seconds(of: str) -> float:
    return clock.time()


class _Time:
    """Function that returns the current time in epoch seconds."""

    def __call__(self) -> float:
        """Return the current time, or that of the same call in an earlier attempt."""
        return _seconds("time")

    async def aio(self) -> float:
        """Return the same time as a call."""
        return self()


class _Now:
    """Function that returns the current local time, without an offset."""

    def __call__(self) -> datetime:
        """Return the current time, or that of the same call in an earlier attempt."""
        return datetime.fromtimestamp(_seconds("now"))

    async def aio(self) -> datetime:
        """Return the same time as a call."""
        return self()


class _Sleep:
    """Function that sleeps for some seconds, counted from the first attempt that called it."""

    def __call__(self, seconds: float) -> None:
        """Sleep for what is left of the seconds."""
        clock.sleep(max(0.0, _seconds("sleep") + seconds - clock.time()))

    async def aio(self, seconds: float) -> None:
        """Sleep for what is left of the seconds."""
        await asyncio.sleep(max(0.0, _seconds("sleep") + seconds - clock.time()))


time, now, sleep = _Time(), _Now(), _Sleep()
