"""One file that a wheel's layer gets: as it stands in the wheel, or generated here."""

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
# Bytes of a deflated file that is rather compressed again, together with its neighbours.
_SMALL = 4096
Hash = tuple[str, str]


@dataclass(frozen=True)
class GeneratedFile:
    """A file made here: a script, a list."""

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
    """A file in a wheel, and the hash that the wheel's RECORD claims for it: checked when it is
    read.
    """

    def __init__(self, wheel: Wheel, file: BinaryIO, info: zipfile.ZipInfo, claimed: Hash) -> None:
        self._wheel, self._file, self._info, self.hash = wheel, file, info, claimed
        self.size, self.crc = info.file_size, info.CRC

    def add_to(self, layer: LayerWriter) -> None:
        """Append it to a layer. Raises `ImageBuildError` if it is not what the RECORD says."""
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
        """Raise `ImageBuildError` if it is not what the RECORD says."""
        with self._damage_named():
            for _ in self.inflate():
                pass

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except zlib.error as error:
            raise refused(
                self._wheel, f"{self._info.filename} in it is damaged ({error})."
            ) from None

    def inflate(self) -> Iterator[tuple[bytes, bytes]]:
        """Pieces as they stand with what they come to."""
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
            raise refused(
                self._wheel, f"{self._info.filename} in it is not the file that its RECORD says."
            )

    def head(self, size: int) -> bytes:
        """The first bytes."""
        raw = next(self._raw(_SMALL), b"")
        return (
            zlib.decompressobj(-15).decompress(raw, size)
            if self._info.compress_type == zipfile.ZIP_DEFLATED
            else raw[:size]
        )

    def _raw(self, size: int = _CHUNK) -> Iterator[bytes]:
        """The bytes as they stand in the zip file, in pieces of a size (APPNOTE.TXT 4.3.7: a local
        header of 30 bytes, a name, more).
        """
        local = os.pread(self._file.fileno(), 30, self._info.header_offset)
        if len(local) < 30 or local[:4] != b"PK\3\4":
            raise refused(self._wheel, "It is no zip file as it should be.")
        at = self._info.header_offset + 30 + sum(struct.unpack("<HH", local[26:30]))
        left = self._info.compress_size
        while left:
            piece = os.pread(self._file.fileno(), min(left, size), at)
            if not piece:
                raise refused(self._wheel, "It ends too early.")
            yield piece
            at, left = at + len(piece), left - len(piece)


def _sum(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
