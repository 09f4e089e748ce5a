"""Hashes of little data and of much: OpenSSL is several times faster, but takes 2 ms to load.

A warm command hashes little, for which Python's own code is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import hashlib

_LITTLE = 1 << 16  # Bytes that are hashed faster than OpenSSL is loaded.


def _first(*modules: str) -> Any:
    for name in modules[:-1]:
        try:
            return import_module(name)
        except ImportError:  # Another version, or not CPython.
            continue
    return import_module(modules[-1])


_sha256 = _first("_sha2", "_sha256", "hashlib").sha256  # The first since Python 3.12.
_blake2b = _first("_blake2", "hashlib").blake2b


def sha256_hex(data: bytes | bytearray | memoryview) -> str:
    """Return the sha256 of `data` in hex digits."""
    if len(data) <= _LITTLE:
        return str(_sha256(data).hexdigest())
    hash = running_sha256()
    hash.update(data)
    return hash.hexdigest()


def running_sha256() -> hashlib._Hash:
    """Return a sha256 to feed with data."""
    import hashlib

    return hashlib.sha256()


def keyed_hex(data: bytes, key: bytes) -> str:
    """Return a hash of 128 bits that reveals nothing about `data` without the key (RFC 7693)."""
    return str(_blake2b(data, key=key, digest_size=16).hexdigest())
