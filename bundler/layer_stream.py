"""Layers as they are read from elsewhere: a tar in one frame of zstd or more, hashed within and
without, in bounded memory.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from flyte_build.cas import tar
from flyte_build.cas.blobs import Blobs
from flyte_build.cas.digest import Digest
from flyte_build.cas.layer import Layer
from flyte_build.errors import ExtractionRefused

# Bytes of zstd window that a layer may ask for (RFC 8878, 3.1.1.1.2 recommends to allow 8 MiB).
WINDOW = 8 << 20
_BUFFER = 1 << 20


@contextmanager
def read_blob(layer: Layer, blobs: Blobs, is_known: bool = False) -> Iterator[tar.Reader]:
    """Yield a reader of the layer's tar, which the body reads to its end; then its digests and size
    are compared with `layer`.

    The diff_id of a layer that `is_known` to have the right one is not: whose blob has its digest
    has it.

    Raises `BlobMissing`, `BlobCorrupt` (the blob is in quarantine then), and `ExtractionRefused`
    for any other difference.
    """
    with blobs.open(layer.digest) as raw:
        stream = _LayerStream(raw, is_known)
        try:
            with stream.reading() as reader:
                yield reader
            stream.compare(layer)
        except ExtractionRefused as error:
            if stream.blob() != layer.digest:
                raise blobs.condemn(layer.digest, "its bytes have another digest") from error
            raise


@contextmanager
def read_bytes(layer: Layer, data: bytes) -> Iterator[tar.Reader]:
    """Yield a reader of the tar in a layer's blob of these bytes. Raises `ExtractionRefused` as
    `read_blob` does.
    """
    stream = _LayerStream(io.BytesIO(data))
    with stream.reading() as reader:
        yield reader
    stream.compare(layer)


class _LayerStream(io.RawIOBase):
    """The tar in a blob of zstd; a second frame is part of it, since other readers take
    it for one.
    """

    def __init__(self, raw: BinaryIO, is_known: bool = False) -> None:
        import zstandard

        self._blob, self._is_known = _Hashed(raw), is_known
        self._sha256 = hashlib.sha256()
        self._error = zstandard.ZstdError
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        self._plain = decompressor.stream_reader(
            self._blob,  # type: ignore[arg-type]  # It only reads.
            read_across_frames=True,
        )

    @contextmanager
    def reading(self) -> Iterator[tar.Reader]:
        """Yield a reader of the tar. What the body meets that is no zstd is raised as
        `ExtractionRefused`.
        """
        try:
            yield tar.Reader(io.BufferedReader(self, _BUFFER))
        except self._error as error:
            raise _refused(f"It is not compressed as it should be ({error}).") from error

    def readable(self) -> bool:
        return True

    # That is what a BufferedReader gives.
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count: int = self._plain.readinto(buffer)
        if not self._is_known:
            self._sha256.update(buffer[:count])
        return count

    def blob(self) -> Digest:
        """Return the digest of the whole blob, read to its end."""
        return self._blob.digest()

    def compare(self, layer: Layer) -> None:
        """Raise `ExtractionRefused` unless the blob, its size and the tar in it, which was read to
        its end, are the layer's.
        """
        if self.blob() != layer.digest:
            raise _refused("Its bytes have another digest.")
        if self._blob.size != layer.size:
            raise _refused(
                f"It has {self._blob.size:,} bytes, and its manifest says {layer.size:,}."
            )
        if not self._is_known and Digest.from_hash(self._sha256) != layer.diff_id:
            raise _refused("Its diff_id is not the digest of the archive in it.")


class _Hashed(io.RawIOBase):
    """Hashes what is read through it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._sha256, self.size = raw, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self._sha256.update(data)
        self.size += len(data)
        return data

    def digest(self) -> Digest:
        """Return the digest of the whole, read to its end."""
        while self.read(_BUFFER):
            pass
        return Digest.from_hash(self._sha256)


def _refused(why: str) -> ExtractionRefused:
    return ExtractionRefused(
        "A layer was refused", why=why, hint="Do not use the place that it came from."
    )
