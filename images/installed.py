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
    """The first file below the folder `packages` that is missing or has another size (with `contents`: other bytes), or ""."""
    for record in sorted(glob.glob(f"{glob.escape(packages)}/*.dist-info/RECORD")):
        with open(record, encoding="utf-8", newline="") as file:
            for path, digest, size in csv.reader(file):
                if not digest:  # As of RECORD itself.
                    continue
                place = os.path.normpath(os.path.join(packages, path))
                if not os.path.isfile(place) or os.path.getsize(place) != int(size or -1) or (contents and _sha256(place) != digest):
                    return path
    return ""


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return f"sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
