"""Summaries of directories that a scan remembers, and the result of a scan."""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from flyte_build.cas.digest import Digest
from flyte_build.cas.statindex import fingerprint

if TYPE_CHECKING:
    from flyte_build.cas.layer import Layer

    from .tree import Entry

# Kind (`f`, `x`, `l`), size in bytes, and the sha256 in hex of a file or the target of a link.
# Names are the file system's bytes.
File = tuple[str, int, bytes]


class Folder(NamedTuple):
    """Summary of a directory, in values that the stat index can store.

    `look` is the listing of the directory, and `files` are its entries in the tree, both
    serialized: an unchanged directory is not deserialized. `below` are the subdirectories (relative
    to the root, ending in "/") with which the scan continues; `taken` and `size` are the number and
    total bytes of the files. `excluded` maps excluded names (those of directories end in "/") to
    the rule that excludes them, and `secrets` maps names to reasons. `links` are the names of the
    links, whose targets are computed each time.
    """

    look: bytes
    below: tuple[str, ...]
    taken: int
    size: int
    files: bytes
    excluded: dict[str, str]
    secrets: dict[str, str]
    links: tuple[str, ...] = ()

    def unpacked(self) -> dict[bytes, File]:
        """Return the files and links of the directory, by name."""
        files: dict[bytes, File] = marshal.loads(self.files)
        return files


class Contents:
    """Data that was read during a scan, so that packing need not read it again.

    It has the bytes of small files, up to a total limit, and layers that were already written, by
    the digest of their part of the tree.
    """

    FILE = 1 << 20  # Maximum bytes of a file that is kept.

    def __init__(self, limit: int = 64 << 20) -> None:
        self._left = limit
        self._data: dict[str, bytes] = {}
        self.layers: dict[Digest, Layer] = {}

    def keep(self, path: str, data: bytes) -> None:
        """Keep the bytes of a file, if there is room."""
        if len(data) <= self._left:
            self._left -= len(data)
            self._data[path] = data

    def take(self, path: str) -> bytes | None:
        """Remove and return the bytes of a file, or None if they were not kept."""
        return self._data.pop(path, None)


class Scan:
    """Result of a scan: directories by relative path ("" or ending in "/"), now and as remembered.

    They lie below `place` in the tree, while messages show `shown` followed by the path (both are
    "" or end in "/"). `is_recent` is whether some files may have changed since the scan started.
    """

    def __init__(
        self,
        folders: dict[str, Folder],
        before: dict[str, Folder],
        contents: Contents,
        *,
        is_recent: bool = False,
        place: str = "",
        shown: str = "",
    ) -> None:
        self.folders, self.before, self.contents, self.is_recent = (
            folders,
            before,
            contents,
            is_recent,
        )
        self._place, self._shown = place, shown
        self._unpacked: dict[str, dict[bytes, File]] = {}

    @property
    def unchanged(self) -> bool:
        """Whether everything is as remembered."""
        return self.folders == self.before

    @cached_property
    def state(self) -> bytes:
        """Fingerprint of the files found, and of their place in the tree."""
        return _state(self.folders, self._place)

    @cached_property
    def state_before(self) -> bytes:
        """Fingerprint of the remembered files."""
        return _state(self.before, self._place)

    def holds(self, path: str) -> bool:
        """Whether the scan found a file or link with this path in the tree."""
        if not path.startswith(self._place):
            return False
        head, slash, name = path.removeprefix(self._place).rpartition("/")
        return os.fsencode(name) in self._files(head + slash)

    def _files(self, folder: str) -> dict[bytes, File]:
        """Return the files and links of a directory, deserialized once."""
        if folder not in self._unpacked:
            known = self.folders.get(folder)
            self._unpacked[folder] = known.unpacked() if known else {}
        return self._unpacked[folder]

    def contents_of(self, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield the paths in the tree that are files in the scan, with their sha256 (hex)."""
        for path in paths:
            if not path.startswith(self._place):
                continue
            head, slash, name = path.removeprefix(self._place).rpartition("/")
            file = self._files(head + slash).get(os.fsencode(name))
            if file and file[0] != "l":
                yield path, file[2].decode()

    def difference(self) -> dict[str, list[str]]:
        """Return the paths `added`, `removed` and `changed` since the remembered scan."""
        found: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
        for folder in self.folders.keys() | self.before.keys():
            packed, packed_before = self.folders.get(folder), self.before.get(folder)
            if packed and packed_before and packed.files == packed_before.files:
                continue
            now, old = (
                packed.unpacked() if packed else {},
                packed_before.unpacked() if packed_before else {},
            )
            above = self._shown + folder
            found["added"] += [above + os.fsdecode(name) for name in now.keys() - old.keys()]
            found["removed"] += [above + os.fsdecode(name) for name in old.keys() - now.keys()]
            found["changed"] += [
                above + os.fsdecode(name)
                for name in now.keys() & old.keys()
                if now[name] != old[name]
            ]
        return found

    def entries(self) -> list[Entry]:
        """Return the tree entries of all files, sorted by directory only."""
        from .tree import Entry

        entries = []
        for folder in sorted(self.folders):
            above = os.fsencode(self._place + folder)
            entries += [
                Entry(above + name, *file) for name, file in self.folders[folder].unpacked().items()
            ]
        return entries

    def excluded(self) -> list[tuple[str, str]]:
        """Return each path that a rule excludes, with the rule, sorted; directories end in "/"."""
        return sorted(
            (folder + name, rule)
            for folder, known in self.folders.items()
            for name, rule in known.excluded.items()
        )


def _state(folders: dict[str, Folder], place: str) -> bytes:
    parts = [
        part
        for folder in sorted(folders)
        for part in (os.fsencode(folder), b"\0", folders[folder].files)
    ]
    return fingerprint(b"".join([os.fsencode(place), b"\0", *parts]))
