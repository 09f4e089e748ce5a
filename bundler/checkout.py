"""A run's code, written out as files again."""

from __future__ import annotations

import os
import shutil

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.os_errors import storing
from flyte_build.cas.verify import forget
from flyte_build.errors import BlobCorrupt, BlobMissing, ExtractionRefused, NotFound, UsageError

from . import bundle, extraction
from .identity import KIND, tree_of
from .marker import find


def check_out(cache: Cache, tree: Digest, folder: str) -> int:
    """Write the files of a tree into `folder`, which must be empty or new; gives their number.

    Raises `NotFound` if the cache has lost them, `UsageError` if the directory holds something.
    """
    if os.path.lexists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise UsageError(
            f"{folder} is not empty",
            why="Nothing is ever written over.",
            hint="Name a new directory: `-o DIR`.",
        )
    with cache.preparing():
        source = find(cache, tree) or _extract(cache, tree)
        if source is None:
            raise NotFound(
                f"The code {tree.short} is not in the cache any more",
                why="It was collected (`flyte cache gc`), or the cache was deleted.",
                hint=(
                    "If you know the state of your project by other means, the same files have the"
                    " same digest: `flyte bundle ls FILE`."
                ),
            )
        with storing("write the code"):
            return _copy(f"{source}/code", folder)


def _extract(cache: Cache, tree: Digest) -> str | None:
    for record in cache.records.of_kind(KIND):
        if tree_of(record) == tree:
            try:
                return extraction.extract(cache, bundle.read(record.artifact, cache.blobs))
            except (BlobCorrupt, BlobMissing):
                continue
            except ExtractionRefused:
                forget(cache, record)
    return None


def _copy(source: str, target: str) -> int:
    """Copy files and links, with the permissions that new files have here; gives their number."""
    number = 0
    for here, folders, files in os.walk(source):
        there = os.path.normpath(f"{target}/{os.path.relpath(here, source)}")
        os.makedirs(there, exist_ok=True)
        for name in files + [name for name in folders if os.path.islink(f"{here}/{name}")]:
            number += 1
            if os.path.islink(f"{here}/{name}"):
                os.symlink(os.readlink(f"{here}/{name}"), f"{there}/{name}")
                continue
            shutil.copyfile(f"{here}/{name}", f"{there}/{name}")
            if os.stat(f"{here}/{name}").st_mode & 0o100:
                os.chmod(f"{there}/{name}", os.stat(f"{there}/{name}").st_mode | 0o111)
    return number
