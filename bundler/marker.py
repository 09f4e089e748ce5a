"""Markers of extractions, which show that one is complete, and whether it was changed since.

A marker contains the state (inode, size, times) of every directory, and of every file if there are
not too many. It also contains the boot time of the machine: files that were never synced may be
lost in a crash.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from flyte_build.cas.boot import boot, is_since
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.folder import opener

if TYPE_CHECKING:
    from .tree import Tree

# Markers of larger trees seal only directories, which shows added, removed and renamed files.
_SEALED_FILES = 2_000


def find(cache: Cache, tree: Digest) -> str | None:
    """Return the directory of an extraction that is complete and unchanged, or None."""
    folder = cache.extraction(tree)
    try:
        with open(f"{folder}/complete", "rb") as file:
            marker = json.loads(file.read())
        sealed = [[path, *_state(f"{folder}/code/{path}")] for path, *_ in marker["sealed"]]
        return (
            folder if sealed and sealed == marker["sealed"] and is_since(marker["boot"]) else None
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def mark(folder: str, tree: Tree) -> None:
    """Write the marker of a new extraction in `folder`, which is otherwise complete."""
    from .tree import folders

    paths = {os.fsdecode(path) for path in folders(entry.path for entry in tree.entries)} | {""}
    if len(tree.entries) <= _SEALED_FILES:
        paths.update(entry.name for entry in tree.entries)
    sealed = [[path, *_state(f"{folder}/code/{path}")] for path in sorted(paths)]
    with open(f"{folder}/complete", "w", encoding="ascii", opener=opener) as file:
        json.dump({"boot": boot(), "sealed": sealed}, file)


def _state(path: str) -> list[int]:
    found = os.lstat(path)
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
