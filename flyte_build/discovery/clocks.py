"""Detection of reads of clocks and random numbers, which make an import's result unrepeatable.

Functions of the modules `time` and `os` are replaced during the import, so that all their calls are
seen, even from C code. Methods of types (`datetime.now`) cannot be replaced: a profile function
sees calls of them from Python code, in all threads.
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
# These functions do not read the clock if they get at least this many arguments.
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
    """Call `read` for each clock and source of random numbers that the body reads.

    Its arguments are the name of the function or method, and the frame that called it.
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
