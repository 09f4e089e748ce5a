"""What a scan remembers of a directory, and what a scan has found."""

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

# The kind (`f`, `x`, `l`), the size in bytes, and a file's sha256 in hex or a link's target. Names
# are the file system's bytes.
File = tuple[str, int, bytes]


class Folder(NamedTuple):
    """What is remembered of a directory, in values that the stat index takes.

    `look` is what a look at the directory gave, and `files` what is in the tree, both packed: a
    directory that looks the same is taken as it is, and not unpacked. `below` are the directories
    (relative to the root, ending in "/") that the scan goes on with; `taken` and `size` sum up the
    files. `excluded` says by which rule a name stays out (a directory's ends in "/"). `links` names
    the links, whose text is asked for anew each time.
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
        """The files and links of the directory, by name."""
        files: dict[bytes, File] = marshal.loads(self.files)
        return files


class Contents:
    """What was read on the way, so that packing need not read it again.

    The bytes of small files, bounded in bytes, and layers that were written already, by the digest
    of the tree's part.
    """

    FILE = 1 << 20  # Bytes of the largest file that is kept.

    def __init__(self, limit: int = 64 << 20) -> None:
        self._left = limit
        self._data: dict[str, bytes] = {}
        self.layers: dict[Digest, Layer] = {}

    def keep(self, path: str, data: bytes) -> None:
        """Keep a file's bytes, if there is room."""
        if len(data) <= self._left:
            self._left -= len(data)
            self._data[path] = data

    def take(self, path: str) -> bytes | None:
        """Give away a file's bytes, if they were kept."""
        return self._data.pop(path, None)


class Scan:
    """What was found, and what is remembered of the time before: directories by relative path (""
    or ending in "/").

    In the tree they lie below `place`, in messages they are called by the path `shown` ("", or
    ending in "/"). `is_recent` says that some of it may have been changed since the scan began.
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
        """Whether all of it is as remembered."""
        return self.folders == self.before

    @cached_property
    def state(self) -> bytes:
        """A fingerprint of the files that were found, and of where they are in the tree."""
        return _state(self.folders, self._place)

    @cached_property
    def state_before(self) -> bytes:
        """The fingerprint of the files that are remembered."""
        return _state(self.before, self._place)

    def holds(self, path: str) -> bool:
        """Whether a file or link of this path in the tree is among what was found."""
        if not path.startswith(self._place):
            return False
        head, slash, name = path.removeprefix(self._place).rpartition("/")
        return os.fsencode(name) in self._files(head + slash)

    def _files(self, folder: str) -> dict[bytes, File]:
        """The files and links of a directory, unpacked once."""
        if folder not in self._unpacked:
            known = self.folders.get(folder)
            self._unpacked[folder] = known.unpacked() if known else {}
        return self._unpacked[folder]

    def contents_of(self, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Give the sha256 (hex) of those of some paths in the tree that are files among what was
        found.
        """
        for path in paths:
            if not path.startswith(self._place):
                continue
            head, slash, name = path.removeprefix(self._place).rpartition("/")
            file = self._files(head + slash).get(os.fsencode(name))
            if file and file[0] != "l":
                yield path, file[2].decode()

    def difference(self) -> dict[str, list[str]]:
        """The paths that were `added`, `removed` and `changed` since the scan that is
        remembered.
        """
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
        """Yield the tree's entries of these files, almost in order: directory by directory."""
        from .tree import Entry

        entries = []
        for folder in sorted(self.folders):
            above = os.fsencode(self._place + folder)
            entries += [
                Entry(above + name, *file) for name, file in self.folders[folder].unpacked().items()
            ]
        return entries

    def excluded(self) -> list[tuple[str, str]]:
        """Return each path (a directory with "/") that a rule excludes, with its rule, sorted."""
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
