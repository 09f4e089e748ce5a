"""The state of directories and paths, in the form in which discovery remembers and compares it."""

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
    """What in `folder` could be a module of one of these names: directories, and files with a
    module's ending.
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
    """All names in a directory, sorted, with a mark for directories and links; None for what cannot
    be listed. Bytecode caches do not count.
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
    """What can be asked about a path: its kind, its rights, how large a file is, where a link
    leads, and the same of what is there.
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
    """The times of a path, in ns: of its content and of its entry."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_mtime_ns, found.st_ctime_ns]


def distributions(folder: str) -> list[str]:
    """The installed distributions and path files in a directory of `sys.path`, by the names of
    their files.
    """
    try:
        return sorted(
            name
            for name in os.listdir(folder)
            if name.endswith((".dist-info", ".egg-info", ".pth"))
        )
    except OSError:
        return []
