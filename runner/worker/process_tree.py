"""The processes that a process has started, with the standard library alone: a worker has nothing
else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator


def descendants(pid: int) -> list[int]:
    """All that a process has started and that goes on, also what has left its group or session; the
    nearest first.
    """
    children: dict[int, list[int]] = {}
    for each, parent in _parents():
        children.setdefault(parent, []).append(each)
    found = [pid]
    for one in found:  # It grows meanwhile.
        found += children.get(one, ())
    return found[1:]


def _parents() -> Iterator[tuple[int, int]]:
    """Each process, and the one that has started it."""
    if sys.platform != "linux":
        import subprocess

        listing = subprocess.run(
            ["ps", "-axo", "pid=,ppid="],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
        ).stdout
        yield from (
            (int(pid), int(parent)) for pid, parent in map(bytes.split, listing.splitlines())
        )
        return
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # proc(5): the name, in (), may hold anything.
                    yield int(name), int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):  # It has ended.
                continue
