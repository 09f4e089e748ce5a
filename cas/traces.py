"""Traces of records: the files that determined an artifact, with the digests they had then."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .digest import Digest

if TYPE_CHECKING:
    from .digest import Key
    from .records import Record, Records


def recall(records: Records, base: Key, root: str, limit: int) -> Record | None:
    """Find a record of `base` whose trace matches the files below `root`, and mark it as used.

    A trace holds the digests of these files by path; a missing file counts as empty. Only the last
    `limit` traces are compared.
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
