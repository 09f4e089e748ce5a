"""The state of folders and paths, in the form in which discovery remembers and compares it."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from flyte_build.cas.digest import Digest

if TYPE_CHECKING:
    from flyte_build.cas.digest import Key
    from flyte_build.cas.records import Record, Records


def candidates(folder: str, names: Collection[str]) -> list[str]:
    """What in `folder` could be a module of one of these names: folders, and files that begin so."""
    wanted = frozenset(names)
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name.partition(".")[0] in wanted and ("." in entry.name or entry.is_dir()) and not entry.name.endswith(".pyi")
            )
    except OSError:
        return []


def names_in(folder: str) -> list[str]:
    """All names in a folder, sorted; what cannot be listed has none. Bytecode caches do not count."""
    try:
        return sorted(name for name in os.listdir(folder) if name != "__pycache__")
    except OSError:
        return []


def recall(records: Records, base: Key, root: str, limit: int) -> Record | None:
    """What was made under `base` when all files below `root` that decided it had the bytes that they have now, marked as used.

    Its traces hold the digests of these files by path; one that is not there counts as empty.
    """
    for found, seen in records.traces(base, limit):
        if all(_digest(os.path.join(root, path)) == digest for path, digest in seen.items()):
            return records.find(found)
    return None


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return Digest.of(file.read())
    except FileNotFoundError:
        return Digest.of(b"")


def presence(path: str) -> list[Any]:
    """Whether a path exists, of what kind it is, and how large a file is."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [stat.S_IFMT(found.st_mode), found.st_size if stat.S_ISREG(found.st_mode) else 0]


def distributions(folder: str) -> list[str]:
    """The installed distributions and path files in a folder of `sys.path`, by the names of their files."""
    return [name for name in names_in(folder) if name.endswith((".dist-info", ".egg-info", ".pth"))]
