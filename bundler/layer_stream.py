"""Streams of untrusted layers: zstd tars of one or more frames, hashed in constant memory."""

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

# Maximum zstd window of a layer, in bytes (RFC 8878, 3.1.1.1.2 recommends 8 MiB).
WINDOW = 8 << 20
_BUFFER = 1 << 20


@contextmanager
def read_blob(layer: Layer, blobs: Blobs, is_known: bool = False) -> Iterator[tar.Reader]:
    """Yield a reader of a layer's tar; once the body has read it all, verify digests and size.

    The diff_id is not verified if it `is_known` to belong to the blob's digest. Raises
    `BlobMissing`, `BlobCorrupt` (after moving the blob to quarantine), and `ExtractionRefused` for
    any other difference.
    """
    with blobs.open(layer.digest) as raw:
        stream = _LayerStream(raw, is_known)
        try:
            with stream.reading() as reader:
                yield reader
            stream.compare(layer)
        except ExtractionRefused as error:
            if stream.blob() != layer.digest:
                raise blobs.condemn(layer.digest, "Its bytes have a different digest") from error
            raise


@contextmanager
def read_bytes(layer: Layer, data: bytes) -> Iterator[tar.Reader]:
    """Yield a reader of the tar in a layer's blob, given as bytes.

    Raises `ExtractionRefused` as `read_blob` does.
    """
    stream = _LayerStream(io.BytesIO(data))
    with stream.reading() as reader:
        yield reader
    stream.compare(layer)


class _LayerStream(io.RawIOBase):
    """The tar in a zstd blob. It includes a second frame, as other readers do."""

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
        """Yield a reader of the tar.

        Raises `ExtractionRefused` if the body reads something that is not zstd.
        """
        try:
            yield tar.Reader(io.BufferedReader(self, _BUFFER))
        except self._error as error:
            raise _refused(f"It cannot be decompressed ({error}).") from error

    def readable(self) -> bool:
        return True

    # The type that a BufferedReader passes.
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count: int = self._plain.readinto(buffer)
        if not self._is_known:
            self._sha256.update(buffer[:count])
        return count

    def blob(self) -> Digest:
        """Read the blob to its end, and return its digest."""
        return self._blob.digest()

    def compare(self, layer: Layer) -> None:
        """Raise `ExtractionRefused` unless the blob, its size and its tar are those of the layer.

        The tar must have been read to its end.
        """
        if self.blob() != layer.digest:
            raise _refused("Its bytes have a different digest.")
        if self._blob.size != layer.size:
            raise _refused(
                f"It has {self._blob.size:,} bytes, but its manifest says {layer.size:,}."
            )
        if not self._is_known and Digest.from_hash(self._sha256) != layer.diff_id:
            raise _refused("Its diff_id does not match the archive in it.")


class _Hashed(io.RawIOBase):
    """A reader that hashes everything read through it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._sha256, self.size = raw, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self._sha256.update(data)
        self.size += len(data)
        return data

    def digest(self) -> Digest:
        """Read to the end, and return the digest of everything."""
        while self.read(_BUFFER):
            pass
        return Digest.from_hash(self._sha256)


def _refused(why: str) -> ExtractionRefused:
    return ExtractionRefused(
        "A layer was refused", why=why, hint="Do not use the source that it came from."
    )
