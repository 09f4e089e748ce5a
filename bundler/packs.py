"""Packs: how a tree is cut into tar layers, so that an edit remakes one of them.

Small files are the leaves of a binary trie over a hash of each path, split above about 2 MiB; the limit is doubled
while there would be more than 32 leaves. Large files are packs of their own, at most 8, the rest of them together. Which
pack a file is in depends on its path and on sizes alone. Cutting and compression are properties of a copy: changing
them changes no identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import xxhash

from flyte_build.cas.blobs import Batch
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.statindex import hash_file
from flyte_build.errors import FileUnstable

from . import tar
from .snapshot import Contents
from .tree import Entry

LIMIT = 5 << 19  # 2.5 MiB, so that 32 packs of 2 MiB on average need no doubling.
_LEAVES = 32
_LARGE = 8
_LEVEL = 1  # On source code, zstd's level 1 is faster than level 3, and not larger.
_CHUNK = 1 << 20
CODE = b"opt/flyte/code/"


def cut(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The packs of a tree's entries, each sorted by path; none is empty."""
    large = sorted((entry for entry in entries if entry.size > LIMIT and entry.kind != "l"), key=lambda e: (-e.size, e.path))
    small = sorted(
        (xxhash.xxh3_128_intdigest(entry.path), tar.padded(entry.size), entry)
        for entry in entries
        if entry.size <= LIMIT or entry.kind == "l"
    )
    limit = LIMIT
    while len(leaves := list(_leaves(small, 127, limit))) > _LEAVES:
        limit *= 2
    packs = [sorted(entry for _, _, entry in leaf) for leaf in leaves]
    packs += [[entry] for entry in large[:_LARGE]]
    return packs + ([sorted(large[_LARGE:])] if large[_LARGE:] else [])


def _leaves(files: list[tuple[int, int, Entry]], bit: int, limit: int) -> Iterator[list[tuple[int, int, Entry]]]:
    if not files:
        return
    if len(files) == 1 or bit < 0 or sum(size for _, size, _ in files) <= limit:
        yield files
        return
    middle = next((at for at, file in enumerate(files) if file[0] >> bit & 1), len(files))
    yield from _leaves(files[:middle], bit - 1, limit)
    yield from _leaves(files[middle:], bit - 1, limit)


class Packer:
    """Writes packs of the files below `root`; what was read already comes from `contents`."""

    def __init__(self, root: str, contents: Contents, counters: Counters) -> None:
        self._root, self._contents, self._counters = root, contents, counters

    def pack(self, entries: Sequence[Entry], batch: Batch) -> tuple[Digest, int, Digest]:
        """Write one pack: its blob's digest and size in bytes, and the digest of the tar inside.

        Raises `FileUnstable` when a file is no longer what its entry says.
        """
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
        path = f"{self._root}/{entry.name}"
        if entry.size <= _CHUNK:
            try:
                found = hash_file(path, self._counters, _CHUNK)
            except OSError:
                raise _changed(entry) from None
            if found.data is None or found.digest.hex.encode() != entry.content:
                raise _changed(entry)
            yield found.data
        else:
            yield from self._stream(entry, path)

    def _stream(self, entry: Entry, path: str) -> Iterator[bytes]:
        import hashlib

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


def write_layer(blocks: Iterator[bytes], batch: Batch) -> tuple[Digest, int, Digest]:
    """Write a tar layer of these blocks, compressed: the blob's digest and size, and the digest of the tar."""
    import hashlib

    import zstandard

    compress = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False, write_content_size=False).compressobj()
    diff = hashlib.sha256()
    with batch.writer() as writer:
        for chunk in _chunks(blocks):
            diff.update(chunk)
            if data := compress.compress(chunk):
                writer.write(data)
        writer.write(compress.flush())
        digest = writer.finish()
        return digest, writer.size, Digest.from_hash(diff)


def _chunks(blocks: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= _CHUNK:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join([*held, tar.END])


def _changed(entry: Entry) -> FileUnstable:
    return FileUnstable(
        f"{entry.name} changed while the bundle was made",
        why="What was read is not what was scanned a moment ago.",
        hint="Run the command again when nothing writes to the project.",
    )
