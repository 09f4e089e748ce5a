"""Disk usage of a directory, by part, as `du` counts it: in blocks, and hard links only once."""

from __future__ import annotations

import os
from collections.abc import Iterator

_BLOCK = 512  # Bytes in the unit of `st_blocks` (POSIX, <sys/stat.h>).
_DATABASE = "cache.sqlite"
_PARTS = ("blobs", "extractions", "environments", "runtimes", "quarantine")


def usage(folder: str) -> dict[str, int]:
    """Return the disk usage, in bytes, of each part of a cache's directory.

    The parts are its large directories, the database, and the rest.
    """
    seen: set[tuple[int, int]] = set()
    found = dict.fromkeys((*_PARTS, "database", "rest"), 0)
    found["rest"] = _size(folder, seen)
    for entry in _entries(folder):
        part = (
            entry.name
            if entry.name in _PARTS
            else "database"
            if entry.name.startswith(_DATABASE)
            else "rest"
        )
        found[part] += sum(_size(path, seen) for path in _below(entry))
    return found


def _below(entry: os.DirEntry[str]) -> Iterator[str]:
    """Yield the path of an entry and all paths below it, skipping those that vanish meanwhile."""
    yield entry.path
    if entry.is_dir(follow_symlinks=False):
        for each in _entries(entry.path):
            yield from _below(each)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _size(path: str, seen: set[tuple[int, int]]) -> int:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return 0
    if (found.st_dev, found.st_ino) in seen:
        return 0
    seen.add((found.st_dev, found.st_ino))
    return found.st_blocks * _BLOCK
