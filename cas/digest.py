"""Digests and keys: the only identities there are.

A digest is written as in OCI (image-spec, descriptor.md, "Digests"): `sha256:` and 64 lower-case
hex digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyte_build.errors import StoreError

from .hash import sha256_hex

if TYPE_CHECKING:
    import hashlib

_PREFIX = "sha256:"
_HEX = frozenset("0123456789abcdef")


def is_hex(digits: str) -> bool:
    """Whether a string is the 64 lower-case hex digits of a sha256."""
    return len(digits) == 64 and _HEX.issuperset(digits)


class _Sha256(str):
    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> _Sha256:
        """Check that `text` is `sha256:` and 64 hex digits, and return it. Raises `StoreError`."""
        if (
            not isinstance(text, str)
            or not text.startswith(_PREFIX)
            or not is_hex(text[len(_PREFIX) :])
        ):
            raise StoreError(
                f"{text!r:.100} is not a digest", why="A digest is `sha256:` and 64 hex digits."
            )
        return cls(text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> _Sha256:
        """Compute the sha256 of `data`."""
        return cls(_PREFIX + sha256_hex(data))

    @property
    def hex(self) -> str:
        """The 64 hex digits alone."""
        return self[len(_PREFIX) :]

    @property
    def short(self) -> str:
        """The first 12 hex digits, for messages."""
        return self[len(_PREFIX) : len(_PREFIX) + 12]


class Digest(_Sha256):
    """The sha256 of some bytes."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Check that `text` is `sha256:` and 64 hex digits, and return it. Raises `StoreError`."""
        return cls(super().parse(text))

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Digest:
        """Compute the digest of `data`."""
        return cls(super().of(data))

    @classmethod
    def from_hash(cls, hash: hashlib._Hash) -> Digest:
        """Return the digest of all bytes that a running sha256 has been fed."""
        return cls(_PREFIX + hash.hexdigest())


class Key(_Sha256):
    """The digest of a node's inputs; names a record, never a blob."""

    __slots__ = ()
