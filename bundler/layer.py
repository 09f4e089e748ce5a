"""Layers: deterministic tar archives, compressed, as blobs (OCI image-spec, layer.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flyte_build.cas.blobs import Batch
from flyte_build.cas.digest import Digest

from . import tar

_LEVEL = 1  # On source code, zstd's level 1 is faster than level 3, and not larger.
_CHUNK = 1 << 18  # Bytes that stay in a processor's cache while they are hashed and compressed.


@dataclass(frozen=True)
class Layer:
    """A layer's blob, its size in bytes, and the digest of the tar inside (OCI's diff_id)."""

    digest: Digest
    size: int
    diff_id: Digest


def write_layer(blocks: Iterable[bytes], batch: Batch) -> Layer:
    """Write a layer of an archive's blocks, to which the end is added. What `blocks` raises leaves nothing behind."""
    import zstandard

    compress = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False, write_content_size=False).compressobj()
    diff = hashlib.sha256()
    with batch.writer() as writer:
        for chunk in _chunks(blocks):
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
