"""Processes that a process has started, found and signalled with the standard library alone."""

from __future__ import annotations

import os
import sys

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2).
TYPE_CHECKING = False  # Type checkers know this name; importing `typing` takes too long here.
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def descendants(pid: int) -> list[int]:
    """Return all running descendants of a process, nearest first.

    Those that left its group or session are included.
    """
    children: dict[int, list[int]] = {}
    for each, parent in _parents():
        children.setdefault(parent, []).append(each)
    found = [pid]
    for one in found:  # The list grows during the loop.
        found += children.get(one, ())
    return found[1:]


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, unless it has ended."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS raises EPERM for a group of zombies.
        return


def signal_tree(pid: int, number: int) -> None:
    """Send a signal to the process group that a process leads, and to all its descendants."""
    everything = descendants(pid)
    signal_group(pid, number)
    signal_each(everything, number)


def signal_each(pids: Iterable[int], number: int) -> None:
    """Send a signal to processes, as far as they have not ended."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def has_children() -> bool:
    """Whether this process has a child, which may have ended."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def adopt_orphans() -> None:
    """Let descendants whose parents have ended become children of this process, on Linux."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def _parents() -> Iterator[tuple[int, int]]:
    """Yield the id of each process, and that of its parent."""
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
                    # proc(5): the name, in (), may contain any character.
                    yield int(name), int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):  # It has ended.
                continue
