"""Installed packages that a fork server imports for its forks.

Tests import each of them in a server, and compute with it in a fork. OpenBLAS and jemalloc start
native threads, for which they have handlers of fork(2). Whatever starts a thread of Python or a
process, or opens a socket, is imported in the fork instead.
"""

from __future__ import annotations

import os
import sys

from .process_tree import has_children

FORKABLE = (
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "pydantic",
    "requests",
    "yaml",
)


def imported() -> list[str]:
    """Return the names of those that this process has imported."""
    return [name for name in FORKABLE if name in sys.modules]


def harm(sockets: int = 0) -> str:
    """Return why this process must not be forked, or ""; it had some `sockets` before."""
    if len(sys._current_frames()) > 1:
        return "a thread was started"
    if has_children():
        return "a process was started"
    return "a socket was opened" if open_sockets() > sockets else ""


def open_sockets() -> int:
    """Return the number of this process's sockets."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:  # It was open for the listing.
            continue
    return found


def seed() -> None:
    """Give the global random generators of packages a new state; that of `random` has one."""
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()
    if torch := sys.modules.get("torch"):
        torch.seed()
