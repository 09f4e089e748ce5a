"""Layers: deterministic, compressed tar archives, stored as blobs (OCI image-spec, layer.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from . import tar
from .blobs import Batch
from .digest import Digest
from .hash import running_sha256

Compression = Literal["zstd", "gzip", "none"]
MEDIA_TYPES: dict[Compression, str] = {
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "none": "application/vnd.oci.image.layer.v1.tar",
}
_ZSTD = 1  # For source code, zstd's level 1 is faster than level 3, and its output is no larger.
_GZIP = 4  # For machine code, level 6 takes twice as long, and saves 2 %.
# Bytes: few enough to stay in the processor's cache while they are hashed and compressed.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Layer:
    """A layer: its blob's digest and size in bytes, and the digest of its tar (OCI's diff_id)."""

    digest: Digest
    size: int
    diff_id: Digest


class Compressor(Protocol):
    """A streaming compressor."""

    def compress(self, data: bytes, /) -> bytes:
        """Compress a piece, and return the output that is ready so far."""

    def flush(self) -> bytes:
        """Return the rest of the output."""


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def compressor(compression: Compression) -> Compressor:
    """Return a compressor that writes no time and no name, and needs no size in advance."""
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(
            level=_ZSTD, write_checksum=False, write_content_size=False
        ).compressobj()
    if compression == "gzip":
        import zlib

        # Its gzip header holds no name and no time.
        return zlib.compressobj(_GZIP, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return _Plain()


def write_layer(blocks: Iterable[bytes], batch: Batch, compression: Compression = "zstd") -> Layer:
    """Write an archive's blocks as a layer, adding the end of the archive.

    If `blocks` raises, nothing is left behind.
    """
    return write_archive(_chunks(blocks), batch, compression)


def write_archive(chunks: Iterable[bytes], batch: Batch, compression: Compression) -> Layer:
    """Write a complete archive, given in pieces, as a layer.

    If `chunks` raises, nothing is left behind.
    """
    compress = compressor(compression)
    diff = running_sha256()
    with batch.writer() as writer:
        for chunk in chunks:
            diff.update(chunk)
            if data := compress.compress(chunk):
                writer.write(data)
        writer.write(compress.flush())
        batch.counters.add(layers_made=1)
        return Layer(writer.finish(), writer.size, Digest.from_hash(diff))


def _chunks(blocks: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= _CHUNK:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join([*held, tar.END])
