"""Traces of records: files that decided what was made, with the digests that they had then."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .digest import Digest

if TYPE_CHECKING:
    from .digest import Key
    from .records import Record, Records


def recall(records: Records, base: Key, root: str, limit: int) -> Record | None:
    """What was made under `base` when all files below `root` that decided it had the bytes that
    they have now, marked as used.

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
