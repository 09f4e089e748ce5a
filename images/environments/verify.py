"""Whether what was installed in an environment is as it was, by what its packages' RECORDs say.

The format is that of the PyPA specifications, "Recording installed projects".
"""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import os


def damage(packages: str, *, contents: bool) -> str:
    """Return the first file below the directory `packages` that is missing or has another size
    (with `contents`: other bytes), or "".
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
        except ValueError:  # It has lines of another form, or is no text.
            return os.path.relpath(record, packages)
    return ""


def _is_good(path: str, digest: str, size: str) -> bool:
    """Whether a file is there, and has a size and a hash as RECORD writes them ("": any)."""
    if not os.path.isfile(path) or (size and os.path.getsize(path) != int(size)):
        return False
    return not digest or _is(path, digest)


def _is(path: str, hashed: str) -> bool:
    """Whether a file has a hash as RECORD writes it."""
    name, _, expected = hashed.partition("=")
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, name).digest()
    except (OSError, ValueError):  # ValueError: no such hash.
        return False
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == expected
