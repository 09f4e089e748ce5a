"""Trees: sets of files by content, independent of place and time.

A tree document is `flyte-tree 1\\n`, then a line for each entry, sorted by the bytes of the path:

    <kind><length of path>:<path><size>:<content>\\n

The kind is `f` (file), `x` (executable file) or `l` (link). The content is the 64 hex digits of a
file's sha256, or the `size` bytes of a link's target. Paths are the file system's bytes, relative,
with `/`. Directories, owners, times and other mode bits are not included. The digest of the
document is the identity of the code.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

from flyte_build.cas.digest import Digest
from flyte_build.errors import ExtractionRefused

_MAGIC = b"flyte-tree 1\n"
_path = itemgetter(0)


class Entry(NamedTuple):
    """A file or link: `content` is the sha256 in hex, or the target; `size` is in bytes."""

    path: bytes
    kind: str
    size: int
    content: bytes

    @property
    def name(self) -> str:
        """The path as a string, with lone surrogates for bytes that are not UTF-8 (PEP 383)."""
        return os.fsdecode(self.path)


class Tree:
    """A sorted list of entries, identified by `digest`."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = sorted(entries, key=_path)
        lines = [
            b"%b%d:%b%d:%b\n" % (kind.encode(), len(path), path, size, content)
            for path, kind, size, content in self.entries
        ]
        self.document = _MAGIC + b"".join(lines)
        self.digest = Digest.of(self.document)
        self._lines = lines

    def sizes(self) -> list[tuple[bytes, int]]:
        """Return the path and size of each entry, in order."""
        return [(path, size) for path, _, size, _ in self.entries]

    def part_digest(self, positions: Iterable[int]) -> Digest:
        """Compute the digest of a tree with only the entries at these positions (in order)."""
        return Digest.of(_MAGIC + b"".join([self._lines[at] for at in positions]))

    @classmethod
    def decode(cls, document: bytes) -> Tree:
        """Decode an untrusted document.

        Raises `ExtractionRefused` unless it is the canonical document of a safe tree.
        """
        try:
            tree = cls(_parse(document))
        except (ValueError, IndexError, UnicodeDecodeError):
            raise _refused("it is malformed") from None
        if tree.document != document:
            raise _refused("it is not sorted, or not in canonical form")
        tree._check()
        return tree

    def _check(self) -> None:
        previous = b""
        files: set[bytes] = set()
        for path, kind, _, content in self.entries:
            parts = path.split(b"/")
            if path == previous or b"\0" in path or not {b"", b".", b".."}.isdisjoint(parts):
                raise _refused(f"it contains the path {os.fsdecode(path)!r}")
            if kind == "l" and (b"\0" in content or not stays_inside(path, content)):
                raise _refused(f"the link {os.fsdecode(path)!r} points outside of it")
            previous = path
            files.add(path)
        links = {entry.path for entry in self.entries if entry.kind == "l"}
        for path, _, _, content in (entry for entry in self.entries if entry.kind == "l"):
            if _climbs_from_link(path, content, links):
                raise _refused(
                    f"the link {os.fsdecode(path)!r} goes up from the target of another link"
                )
        if both := files & folders(files):
            raise _refused(f"{os.fsdecode(min(both))!r} is both a directory and a file or link")

    def difference(self, old: Tree) -> dict[str, list[str]]:
        """Return the paths `added`, `removed` and `changed` since `old`, each list sorted."""
        before, now = (
            {entry.path: entry for entry in old.entries},
            {entry.path: entry for entry in self.entries},
        )
        return {
            "added": [os.fsdecode(path) for path in sorted(now.keys() - before.keys())],
            "removed": [os.fsdecode(path) for path in sorted(before.keys() - now.keys())],
            "changed": [
                os.fsdecode(path)
                for path in sorted(now)
                if path in before and now[path] != before[path]
            ],
        }


def stays_inside(path: bytes, target: bytes) -> bool:
    """Whether a link at `path` (relative to a root) to `target` stays below it, by its text."""
    if target.startswith(b"/"):
        return False
    depth = path.count(b"/")
    for part in target.split(b"/"):
        depth += -1 if part == b".." else 0 if part in (b"", b".") else 1
        if depth < 0:
            return False
    return True


def _climbs_from_link(path: bytes, target: bytes, links: set[bytes]) -> bool:
    """Whether a link's target has a `..` after another link, so that text cannot tell its end.

    (CVE-2025-4138)
    """
    at = path.split(b"/")[:-1]
    through_link = False
    for part in target.split(b"/"):
        if part == b"..":
            if through_link:
                return True
            at = at[:-1]
        elif part not in (b"", b"."):
            at = [*at, part]
            through_link = through_link or b"/".join(at) in links
    return False


def folders(paths: Iterable[bytes]) -> set[bytes]:
    """Return all directories that contain these paths, at any depth, except the root."""
    found: set[bytes] = set()
    above = {path.rpartition(b"/")[0] for path in paths} - {b""}
    while above:
        found |= above
        above = {path.rpartition(b"/")[0] for path in above} - found - {b""}
    return found


def _parse(document: bytes) -> Iterator[Entry]:
    if not document.startswith(_MAGIC):
        raise ValueError
    at, end = len(_MAGIC), len(document)
    while at < end:
        kind = chr(document[at])
        colon = document.index(b":", at, at + 12)
        start, stop = colon + 1, colon + 1 + int(document[at + 1 : colon])
        path = document[start:stop]
        colon = document.index(b":", stop, stop + 21)
        size = int(document[stop:colon])
        at = colon + 1 + (size if kind == "l" else 64)
        content = document[colon + 1 : at]
        if (
            kind not in "fxl"
            or not path
            or size < 0
            or document[at] != 10
            or (kind != "l" and not _is_hex(content))
        ):
            raise ValueError
        yield Entry(path, kind, size, content)
        at += 1


def _is_hex(content: bytes) -> bool:
    return len(content) == 64 and not content.strip(b"0123456789abcdef")


def _refused(why: str) -> ExtractionRefused:
    return ExtractionRefused(
        "A bundle's tree was refused", why=why, hint="Do not use the source that it came from."
    )
