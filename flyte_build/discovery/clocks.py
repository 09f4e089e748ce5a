"""Watching for clocks and random numbers that an import reads, which make what it gives
unrepeatable.

Functions of the modules `time` and `os` are replaced while the import lasts, so that they are seen
whoever calls them, C code included. Methods of types (`datetime.now`) cannot be replaced: a profile
function sees Python code call them, in threads too.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

_TIMES = [
    f"{name}{unit}"
    for name in (
        "time",
        "monotonic",
        "perf_counter",
        "process_time",
        "thread_time",
        "clock_gettime",
    )
    for unit in ("", "_ns")
]
# With so many arguments they read no clock.
_UNTIL = {"localtime": 1, "gmtime": 1, "ctime": 1, "asctime": 1, "strftime": 2}
_SYSTEM = ("urandom", "getrandom", "times")
_METHODS = frozenset(
    (
        "now",
        "utcnow",
        "today",
        "random",
        "getrandbits",
        "urandom",
        "getrandom",
        "generate_time_safe",
        *_TIMES,
    )
)
_OWNERS = frozenset(
    ("time", "datetime", "date", "posix", "Random", "SystemRandom", "_random", "_uuid")
)


@contextmanager
def watching(read: Callable[[str, FrameType | None], None]) -> Iterator[None]:
    """Call `read` with the name of each clock or source of random numbers that the body reads, and
    the frame that did.
    """
    replaced: list[tuple[ModuleType, str, Any]] = []

    def replace(module: ModuleType, name: str, until: int | None) -> None:
        function = getattr(module, name, None)
        if function is None:
            return

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if until is None or len(args) < until:
                read(name, sys._getframe(1))
            return function(*args, **kwargs)

        replaced.append((module, name, function))
        setattr(module, name, watched)

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call" and arg.__name__ in _METHODS and frame.f_code.co_filename != __file__:
            owner = arg.__self__ if arg.__self__ is not None else arg
            if not _OWNERS.isdisjoint((getattr(owner, "__name__", ""), type(owner).__name__)):
                read(arg.__name__, frame)

    for name in _TIMES:
        replace(time, name, None)
    for name, until in _UNTIL.items():
        replace(time, name, until)
    for name in _SYSTEM:
        replace(os, name, None)
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        for module, name, function in replaced:
            setattr(module, name, function)
