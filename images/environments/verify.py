"""Check of installed packages against their RECORDs.

The format is that of the PyPA specifications, "Recording installed projects".
"""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import os


def damage(packages: str, *, contents: bool) -> str:
    """Return the first file in `packages` that is missing or differs from its RECORD, or "".

    Only sizes are compared, and with `contents` also hashes.
    """
    for record in sorted(glob.glob(f"{glob.escape(packages)}/*.dist-info/RECORD")):
        try:
            with open(record, encoding="utf-8", newline="") as file:
                for path, digest, size in csv.reader(file):
                    if digest and not _is_good(
                        os.path.normpath(os.path.join(packages, path)),
                        digest if contents else "",
                        size,
                    ):
                        return path
        except ValueError:  # It has malformed lines, or is not text.
            return os.path.relpath(record, packages)
    return ""


def _is_good(path: str, digest: str, size: str) -> bool:
    """Whether a file exists, with a size and a hash in RECORD's form ("" matches any)."""
    if not os.path.isfile(path) or (size and os.path.getsize(path) != int(size)):
        return False
    return not digest or _is(path, digest)


def _is(path: str, hashed: str) -> bool:
    """Whether a file has a hash in RECORD's form."""
    name, _, expected = hashed.partition("=")
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, name).digest()
    except (OSError, ValueError):  # ValueError: an unknown hash algorithm.
        return False
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == expected
