"""Writing of layers into which deflated files are copied without compressing them again.

A gzip file may have several members, which make up one stream (RFC 1952, 2.2). So a deflated file
of a wheel, which is a zip file, becomes a gzip member of its own: its bytes are copied, and only
inflated to be checked. Every gzip reader reads such layers (eStargz layers have many members, too).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from flyte_build.cas import tar
from flyte_build.cas.blobs import Batch, BlobWriter
from flyte_build.cas.digest import Digest
from flyte_build.cas.layer import Compression, Layer, compressor

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # RFC 1952, 2.3: no name, no time, no operating system.
_CHUNK = 1 << 18  # Bytes; fits into a processor's cache while it is hashed and compressed.


class Deflated(Protocol):
    """Content that is stored deflated (RFC 1951)."""

    def inflate(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield pieces of the raw stream, each with its inflated bytes.

        Raises an error at the end if the content is not the expected one.
        """

    @property
    def crc(self) -> int:
        """The CRC-32 of the inflated content."""

    @property
    def size(self) -> int:
        """The number of bytes of the inflated content."""


class LayerWriter:
    """Writer of one layer into a batch; `write` and `splice` append to the archive, in order."""

    def __init__(self, batch: Batch, writer: BlobWriter, compression: Compression) -> None:
        self._batch, self._writer, self._compression = batch, writer, compression
        self._diff = hashlib.sha256()
        self._held: list[bytes] = []
        self._size = 0
        self._compress = None if compression == "gzip" else compressor(compression)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._held.append(data)
        self._size += len(data)
        if self._size >= _CHUNK:
            self._emit()

    def splice(self, content: Deflated) -> None:
        """Append deflated content, without compressing it again if the layer uses gzip."""
        if self._compression != "gzip":
            for _, plain in content.inflate():
                self.write(plain)
            return
        self._emit()
        self._end_member()
        self._writer.write(_HEADER)
        for raw, plain in content.inflate():
            self._diff.update(plain)
            self._writer.write(raw)
        self._writer.write(struct.pack("<II", content.crc, content.size & 0xFFFFFFFF))

    def finish(self) -> Layer:
        """Complete the archive and return the layer, which is then in the batch."""
        self.write(tar.END)
        self._emit()
        self._end_member()
        self._batch.counters.add(layers_made=1)
        return Layer(self._writer.finish(), self._writer.size, Digest.from_hash(self._diff))

    def _emit(self) -> None:
        data = b"".join(self._held)
        self._held, self._size = [], 0
        if data:
            self._diff.update(data)
            if self._compress is None:
                self._compress = compressor("gzip")
            self._writer.write(self._compress.compress(data))

    def _end_member(self) -> None:
        if self._compress is not None:
            self._writer.write(self._compress.flush())
            self._compress = None


def inflated(pieces: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield pieces of a raw deflate stream, each with its inflated bytes.

    Raises `zlib.error` if these are not exactly `size` bytes.
    """
    inflate, done = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for piece in pieces:
        rest, raw = piece, piece
        while rest or raw:  # A small piece may inflate to many bytes: limit each step.
            plain = inflate.decompress(rest, 4 * _CHUNK)
            done += len(plain)
            if done > size or inflate.unused_data:
                raise zlib.error("it is longer than declared")
            yield raw, plain
            rest, raw = inflate.unconsumed_tail, b""
    if done != size or not inflate.eof:
        raise zlib.error("it is shorter than declared")
