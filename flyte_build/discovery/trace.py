"""States of directories and paths as discovery stores and compares them."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from importlib.machinery import all_suffixes
from typing import Any

# Shells change these with every command and directory.
OF_SHELLS = frozenset(("_", "OLDPWD", "PWD", "SHLVL"))
_SUFFIXES = frozenset(all_suffixes())


def candidates(folder: str, names: Collection[str]) -> list[str]:
    """Return the sorted names in `folder` that could be modules of these names.

    These are directories, and files with the suffix of a module; none if it cannot be listed.
    """
    wanted = frozenset(names)
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if _is_candidate(entry, wanted))
    except OSError:
        return []


def _is_candidate(entry: os.DirEntry[str], wanted: Collection[str]) -> bool:
    stem, dot, ending = entry.name.partition(".")
    return stem in wanted and (dot + ending in _SUFFIXES if dot else entry.is_dir())


def names_in(folder: str) -> list[str] | None:
    """Return the sorted names in a directory, or None if it cannot be listed.

    Directories are marked with "/" and links with "@". `__pycache__` is left out.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name + _mark(entry) for entry in entries if entry.name != "__pycache__"
            )
    except OSError:
        return None


def _mark(entry: os.DirEntry[str]) -> str:
    return "@" if entry.is_symlink() else "/" if entry.is_dir(follow_symlinks=False) else ""


def presence(path: str) -> list[Any]:
    """Return the state that `stat` reveals about a path; empty if it does not exist.

    That is its mode, the target of a link, and the mode and the size of the file that it leads to.
    """
    try:
        own = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(own.st_mode) else ""
    except OSError:
        return []
    try:
        found = os.stat(path)
    except OSError:
        return [own.st_mode, target]
    return [own.st_mode, target, found.st_mode, found.st_size if stat.S_ISREG(found.st_mode) else 0]


def times(path: str) -> list[int]:
    """Return the mtime and the ctime of a path in ns; empty if it does not exist."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_mtime_ns, found.st_ctime_ns]


def distributions(folder: str) -> list[str]:
    """Return the sorted names of distributions and `.pth` files in a directory of `sys.path`."""
    try:
        return sorted(
            name
            for name in os.listdir(folder)
            if name.endswith((".dist-info", ".egg-info", ".pth"))
        )
    except OSError:
        return []
