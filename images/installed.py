"""Whether what was installed in an environment is as it was, by what its packages' RECORDs say.

The format is that of the PyPA specifications, "Recording installed projects".
"""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from .binaries import HEAD, check_binaries, refused

if TYPE_CHECKING:
    from .pins import Wheel


def damage(packages: str, *, contents: bool) -> str:
    """The first file below the folder `packages` that is missing or has another size (with `contents`: other bytes), or ""."""
    for record in sorted(glob.glob(f"{glob.escape(packages)}/*.dist-info/RECORD")):
        with open(record, encoding="utf-8", newline="") as file:
            for path, digest, size in csv.reader(file):
                if not digest:  # As of RECORD itself.
                    continue
                place = os.path.normpath(os.path.join(packages, path))
                if not os.path.isfile(place) or (size and os.path.getsize(place) != int(size)) or (contents and not _is(place, digest)[0]):
                    return path
    return ""


def check(packages: str, wheels: "Iterable[Wheel]", platform: str) -> None:
    """Raise `ImageBuildError` for a wheel, just installed below the folder `packages`, that a layer would refuse, too.

    Its files must be those of its RECORD, and machine code be for this machine. Every file is read once.
    """
    from packaging.utils import canonicalize_name

    records = {
        canonicalize_name(os.path.basename(os.path.dirname(each)).rpartition("-")[0]): each
        for each in glob.iglob(f"{glob.escape(packages)}/*.dist-info/RECORD")
    }
    for wheel in wheels:
        heads: dict[str, Callable[[], bytes]] = {}
        if (record := records.get(canonicalize_name(wheel.name))) is None:
            raise refused(wheel, "What was installed of it has no RECORD.")
        with open(record, encoding="utf-8", newline="") as file:
            for path, digest, _ in csv.reader(file):
                if digest:
                    good, head = _is(os.path.normpath(os.path.join(packages, path)), digest)
                    if not good:
                        raise refused(wheel, f"{path} in it is not the file that its RECORD says.")
                    heads[path] = partial(bytes, head)
        if platform.startswith("linux/"):
            check_binaries(wheel, heads, platform)


def _is(path: str, hashed: str) -> tuple[bool, bytes]:
    """Whether a file has a hash as RECORD writes it, and the first bytes of the file."""
    name, _, expected = hashed.partition("=")
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
            file.seek(0)
            digest = hashlib.file_digest(file, name).digest()
    except (OSError, ValueError):  # ValueError: no such hash.
        return False, b""
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == expected, head
