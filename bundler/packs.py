"""Packs: partition of a tree into tar layers, so that an edit rebuilds only one of them.

Small files are the leaves of a binary trie over a hash of each path, split above about 2 MiB; the
limit is doubled while there would be more than 32 leaves. Large files are packs of their own, at
most 8, and one more for the rest of them. The pack of a file depends on its path and on sizes only.
Partition and compression are properties of a copy: changing them changes no identity.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import xxhash

from flyte_build.cas import tar
from flyte_build.cas.blobs import Batch
from flyte_build.cas.counters import Counters
from flyte_build.cas.layer import Layer, write_layer
from flyte_build.cas.statindex import Row, row
from flyte_build.errors import FileUnstable

from .snapshot import Contents
from .tree import Entry

LIMIT = 5 << 19  # 2.5 MiB, so that 32 packs of 2 MiB on average need no doubling.
_LEAVES = 32
_LARGE = 8
_BITS = 60  # Bits of the hash that are used.
_CHUNK = 1 << 20
CODE = b"opt/flyte/code/"


def cut(files: Sequence[tuple[bytes, int]]) -> list[list[int]]:
    """Partition files (path and size in bytes, sorted by path) into packs, none of them empty.

    Each pack is the list of its files' positions, in order.
    """
    large = sorted([(-size, path, at) for at, (path, size) in enumerate(files) if size > LIMIT])
    hashes = [xxhash.xxh3_128_intdigest(path) >> 128 - _BITS for path, _ in files]
    order = sorted(
        [at for at, (_, size) in enumerate(files) if size <= LIMIT], key=hashes.__getitem__
    )
    trie = _Trie(
        order,
        [hashes[at] for at in order],
        [0, *accumulate([tar.padded(files[at][1]) for at in order])],
    )
    limit = LIMIT
    while len(leaves := list(trie.leaves(limit, 0, len(order), 0, _BITS))) > _LEAVES:
        limit *= 2
    packs = [sorted(leaf) for leaf in leaves] + [[at] for _, _, at in large[:_LARGE]]
    return packs + ([sorted([at for _, _, at in large[_LARGE:]])] if large[_LARGE:] else [])


class _Trie(NamedTuple):
    """Files in the order of their hashes: positions, hashes, and the sums of sizes before each."""

    files: list[int]
    hashes: list[int]
    sums: list[int]

    def leaves(
        self, limit: int, start: int, stop: int, prefix: int, bits: int
    ) -> Iterator[list[int]]:
        """Yield the leaves among files `start` to `stop`.

        Their hashes begin with `prefix` and differ in the last `bits`.
        """
        if start == stop:
            return
        if self.sums[stop] - self.sums[start] <= limit or stop - start == 1 or not bits:
            yield self.files[start:stop]
            return
        right = prefix | 1 << bits - 1
        middle = bisect_left(self.hashes, right, start, stop)
        yield from self.leaves(limit, start, middle, prefix, bits - 1)
        yield from self.leaves(limit, middle, stop, right, bits - 1)


class Packer:
    """Writer of packs.

    `absolute` maps a path in the tree to its path on disk; `contents` may hold files that were
    already read.
    """

    def __init__(
        self, absolute: Callable[[str], str], contents: Contents, counters: Counters
    ) -> None:
        self._absolute, self._contents, self._counters = absolute, contents, counters

    def pack(self, entries: Sequence[Entry], batch: Batch) -> Layer:
        """Write one pack as a layer. Raises `FileUnstable` if a file does not match its entry."""
        return write_layer(self._blocks(entries), batch)

    def _blocks(self, entries: Sequence[Entry]) -> Iterator[bytes]:
        for entry in entries:
            if entry.kind == "l":
                yield tar.header(tar.Member(CODE + entry.path, 0, target=entry.content))
                continue
            yield tar.header(tar.Member(CODE + entry.path, entry.size, entry.kind == "x"))
            yield from self._read(entry)
            yield tar.padding(entry.size)

    def _read(self, entry: Entry) -> Iterator[bytes]:
        data = self._contents.take(entry.name)
        if data is not None:
            yield data
            return
        path = self._absolute(entry.name)
        if entry.size > _CHUNK:
            yield from self._stream(entry, path)
            return
        try:
            data, _ = read_whole(path, entry.size)
        except OSError:
            raise _changed(entry) from None
        self._counters.add(files_read=1, bytes_hashed=len(data))
        if hashlib.sha256(data).hexdigest().encode() != entry.content:
            raise _changed(entry)
        yield data

    def _stream(self, entry: Entry, path: str) -> Iterator[bytes]:
        sha256, size = hashlib.sha256(), 0
        try:
            with open(path, "rb", buffering=0) as file:
                while piece := file.read(_CHUNK):
                    sha256.update(piece)
                    size += len(piece)
                    if size > entry.size:
                        raise _changed(entry)
                    yield piece
        except OSError:
            raise _changed(entry) from None
        self._counters.add(files_read=1, bytes_hashed=size)
        if sha256.hexdigest().encode() != entry.content:
            raise _changed(entry)


def read_whole(path: str | bytes, size: int) -> tuple[bytes, Row]:
    """Read a file of the expected `size` (one byte more if it has grown); return bytes and state.

    Raises `OSError`.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(file, size + 1), row(os.fstat(file))
    finally:
        os.close(file)


def _changed(entry: Entry) -> FileUnstable:
    return FileUnstable(
        f"{entry.name} changed while the bundle was built",
        why="It differs from what was scanned a moment ago.",
        hint="Run the command again once nothing writes to the project.",
    )
