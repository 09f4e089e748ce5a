"""What a scan has found: every folder's names with what is known of them, and the bytes that were read on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tree import Entry

# What is remembered of a name in a folder, as values that the stat index takes:
#   ("f", state, sha256 in hex, size, executable, secret)   ("l", state, target)   ("d",)   ("i", is a folder, rule)
# and, under the empty name, ("r", states of the folder's ignore files).
Known = tuple[Any, ...]
Folder = dict[str, Known]


class Contents:
    """The bytes of small files that were just read, so that packing need not read them again; bounded in bytes."""

    FILE = 1 << 20  # Bytes of the largest file that is kept.

    def __init__(self, limit: int = 64 << 20) -> None:
        self._left = limit
        self._data: dict[str, bytes] = {}

    def keep(self, path: str, data: bytes) -> None:
        """Keep a file's bytes, if there is room."""
        if len(data) <= self._left:
            self._left -= len(data)
            self._data[path] = data

    def take(self, path: str) -> bytes | None:
        """Give away a file's bytes, if they were kept."""
        return self._data.pop(path, None)


@dataclass
class Scan:
    """What was found: folders by relative path ("" or ending in "/"), and whether all of it was as remembered."""

    root: str
    folders: dict[str, Folder]
    unchanged: bool
    state: bytes
    before: dict[str, Folder]
    state_before: bytes
    contents: Contents = field(default_factory=Contents)

    def files(self) -> Iterator[tuple[str, Known]]:
        """Every file and link with what is known of it, in no order."""
        for folder, names in self.folders.items():
            for name, known in names.items():
                if known[0] == "f" or known[0] == "l":
                    yield folder + name, known

    def holds(self, path: str) -> bool:
        """Whether a file or link of this path is among what was found."""
        head, slash, name = path.rpartition("/")
        known = self.folders.get(head + slash, {}).get(name)
        return known is not None and known[0] in ("f", "l")

    def difference(self) -> dict[str, list[str]]:
        """The paths that were `added`, `removed` and `changed` since the scan that is remembered."""
        found: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
        for folder in self.folders.keys() | self.before.keys():
            now, old = (_contents(each.get(folder, {})) for each in (self.folders, self.before))
            if now == old:
                continue
            found["added"] += [folder + name for name in now.keys() - old.keys()]
            found["removed"] += [folder + name for name in old.keys() - now.keys()]
            found["changed"] += [folder + name for name in now.keys() & old.keys() if now[name] != old[name]]
        return found

    def entries(self) -> "list[Entry]":
        """The entries of the tree that these files make."""
        from .tree import Entry

        return [
            Entry(os.fsencode(path), "x" if known[4] else "f", known[3], known[2].encode())
            if known[0] == "f"
            else Entry(os.fsencode(path), "l", len(os.fsencode(known[2])), os.fsencode(known[2]))
            for path, known in self.files()
        ]

    def excluded(self) -> list[tuple[str, str]]:
        """Every path (folders end in "/") that a rule keeps out, with the rule, sorted by path."""
        return sorted(
            (folder + name + "/" * known[1], known[2])
            for folder, names in self.folders.items()
            for name, known in names.items()
            if known[0] == "i"
        )


def _contents(names: Folder) -> dict[str, Known]:
    """What of a folder's names is in a tree."""
    return {name: known[2:5:2] if known[0] == "f" else known[2:] for name, known in names.items() if known[0] in ("f", "l")}
