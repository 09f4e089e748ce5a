"""Files of a wheel's layer: copied from the wheel, or generated."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from flyte_build.images.lock.pins import Wheel

from .gzip_members import LayerWriter, inflated
from .machine_code import refused

_CHUNK = 1 << 18
# Smaller deflated files (bytes) are compressed again, together with their neighbours.
_SMALL = 4096
Hash = tuple[str, str]


@dataclass(frozen=True)
class GeneratedFile:
    """A generated file: a script or a list."""

    data: bytes

    def add_to(self, layer: LayerWriter) -> None:
        layer.write(self.data)

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def hash(self) -> Hash:
        return "sha256", _sum(hashlib.sha256(self.data).digest())


class ZipMember:
    """A file in a wheel, with the hash in the wheel's RECORD, which is checked at each reading."""

    def __init__(self, wheel: Wheel, file: BinaryIO, info: zipfile.ZipInfo, claimed: Hash) -> None:
        self._wheel, self._file, self._info, self.hash = wheel, file, info, claimed
        self.size, self.crc = info.file_size, info.CRC

    def add_to(self, layer: LayerWriter) -> None:
        """Append the file to a layer.

        Raises `ImageBuildError` if it does not match the RECORD.
        """
        with self._damage_named():
            if (
                self._info.compress_type == zipfile.ZIP_DEFLATED
                and self._info.compress_size >= _SMALL
            ):
                layer.splice(self)
            else:
                for _, plain in self.inflate():
                    layer.write(plain)

    def check(self) -> None:
        """Raise `ImageBuildError` if the file does not match the RECORD."""
        with self._damage_named():
            for _ in self.inflate():
                pass

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except zlib.error as error:
            raise refused(
                self._wheel, f"Its file {self._info.filename} is damaged ({error})."
            ) from None

    def inflate(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pieces of the file as they are stored, each with its inflated bytes."""
        claimed, crc = hashlib.new(self.hash[0]), 0
        pieces: Iterator[tuple[bytes, bytes]]
        if self._info.compress_type == zipfile.ZIP_DEFLATED:
            pieces = inflated(self._raw(), self.size)
        else:
            pieces = ((piece, piece) for piece in self._raw())
        for raw, plain in pieces:
            claimed.update(plain)
            crc = zlib.crc32(plain, crc)
            yield raw, plain
        if _sum(claimed.digest()) != self.hash[1] or crc != self.crc:
            raise refused(self._wheel, f"Its file {self._info.filename} does not match its RECORD.")

    def head(self, size: int) -> bytes:
        """Return the first `size` bytes of the file."""
        raw = next(self._raw(_SMALL), b"")
        return (
            zlib.decompressobj(-15).decompress(raw, size)
            if self._info.compress_type == zipfile.ZIP_DEFLATED
            else raw[:size]
        )

    def _raw(self, size: int = _CHUNK) -> Iterator[bytes]:
        """Yield the bytes as they are stored in the zip file, in pieces of at most `size`.

        The local header has 30 bytes, a name and extra fields (APPNOTE.TXT 4.3.7).
        """
        local = os.pread(self._file.fileno(), 30, self._info.header_offset)
        if len(local) < 30 or local[:4] != b"PK\3\4":
            raise refused(self._wheel, "It is not a valid zip file.")
        at = self._info.header_offset + 30 + sum(struct.unpack("<HH", local[26:30]))
        left = self._info.compress_size
        while left:
            piece = os.pread(self._file.fileno(), min(left, size), at)
            if not piece:
                raise refused(self._wheel, "Its file is truncated.")
            yield piece
            at, left = at + len(piece), left - len(piece)


def _sum(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
