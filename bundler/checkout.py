"""Checkout of a run's code as files."""

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
    """Write the files of a tree to `folder`, which must be empty or new, and return their number.

    Raises `NotFound` if the tree is no longer in the cache, and `UsageError` if the directory is
    not empty.
    """
    if os.path.lexists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise UsageError(
            f"{folder} is not empty",
            why="Existing files are never overwritten.",
            hint="Name a new directory: `-o DIR`.",
        )
    with cache.preparing():
        source = extracted(cache, tree)
        with storing("write the code"):
            return _copy(f"{source}/code", folder)


def extracted(cache: Cache, tree: Digest) -> str:
    """Return the directory of an extracted tree; the caller holds the cache's shared lock.

    Raises `NotFound` if the tree is no longer in the cache.
    """
    source = find(cache, tree) or _extract(cache, tree)
    if source is None:
        raise NotFound(
            f"The code {tree.short} is no longer in the cache",
            why="It was collected (`flyte cache gc`), or the cache was deleted.",
            hint=(
                "Check out that state of your project, if you know it by other means: the same"
                " files have the same digest (`flyte bundle ls FILE`)."
            ),
        )
    return source


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
    """Copy files and links, with the permissions of new files, and return their number."""
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
