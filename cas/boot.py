"""Boot time of this machine: unsynced data from before the last boot cannot be trusted.

A crash cannot be told apart from a clean restart.
"""

from __future__ import annotations

import time

_SAME = 300.0  # Tolerance in seconds: the clock may have been adjusted in between.


def boot() -> float:
    """Return the boot time of this machine, in seconds since the epoch."""
    return time.time() - time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def is_since(moment: float) -> bool:
    """Whether `moment`, an earlier result of `boot()`, belongs to the current boot."""
    return abs(boot() - moment) < _SAME
