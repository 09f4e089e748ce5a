"""When this machine was started: what was never synced does not outlive a crash, and a clean
restart is not told apart from one.
"""

from __future__ import annotations

import time

_SAME = 300.0  # Seconds by which the clock may have been set since.


def boot() -> float:
    """When this machine was started, in seconds since the epoch."""
    return time.time() - time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def is_since(moment: float) -> bool:
    """Whether `moment`, an earlier `boot()`, is the last start."""
    return abs(boot() - moment) < _SAME
