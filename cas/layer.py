"""Layers: deterministic tar archives, compressed, as blobs (OCI image-spec, layer.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from . import tar
from .blobs import Batch
from .digest import Digest

Compression = Literal["zstd", "gzip", "none"]
MEDIA_TYPES: dict[Compression, str] = {
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "none": "application/vnd.oci.image.layer.v1.tar",
}
_ZSTD = 1  # On source code, zstd's level 1 is faster than level 3, and not larger.
_GZIP = 4  # Of machine code, level 6 takes twice the time to save 2 %.
_CHUNK = 1 << 18  # Bytes that stay in a processor's cache while they are hashed and compressed.


@dataclass(frozen=True)
class Layer:
    """A layer's blob, its size in bytes, and the digest of the tar inside (OCI's diff_id)."""

    digest: Digest
    size: int
    diff_id: Digest


class Compressor(Protocol):
    """Compresses a stream piece by piece."""

    def compress(self, data: bytes, /) -> bytes:
        """What is ready so far."""

    def flush(self) -> bytes:
        """The rest."""


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def compressor(compression: Compression) -> Compressor:
    """One that writes no time and no name, and needs no size beforehand."""
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
    """Write a layer of an archive's blocks, to which the end is added. What `blocks` raises leaves
    nothing behind.
    """
    return write_archive(_chunks(blocks), batch, compression)


def write_archive(chunks: Iterable[bytes], batch: Batch, compression: Compression) -> Layer:
    """Write a layer of an archive that is whole already, in pieces. What `chunks` raises leaves
    nothing behind.
    """
    compress = compressor(compression)
    diff = hashlib.sha256()
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
