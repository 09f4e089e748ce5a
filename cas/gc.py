"""Garbage collection: mark what is reachable from the roots, sweep the rest.

Roots are leases, and records used within the keep time. There is no grace by age: whoever writes holds the cache's
shared lock, and deleting happens in short turns under the exclusive one, each with marks of its own moment.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from flyte_build.errors import StoreUnavailable

from .cache import Cache
from .digest import Digest
from .faults import storing

_TURN = 2000  # Deletions under one exclusive lock: about a tenth of a second.


@dataclass(frozen=True)
class Removed:
    """One thing that was (or would be) removed: its digest, its size in bytes, and why."""

    digest: str
    size: int
    why: str


@dataclass(frozen=True)
class Collection:
    """What a collection removed, and how many blobs it kept."""

    removed: list[Removed]
    kept: int

    @property
    def bytes(self) -> int:
        """The sum of the sizes."""
        return sum(item.size for item in self.removed)


def collect(cache: Cache, keep: float, dry_run: bool) -> Collection:
    """Remove what no lease and no record used within the last `keep` seconds needs; 0 removes all that has no root.

    A dry run finds the same things and touches nothing. Safe beside running tasks, writers and other collections.
    """
    removed: list[Removed] = []
    limit = int(time.time() - keep)
    with cache.collecting():
        if not dry_run:
            cache.records.remove_unused(limit)
        marks = _Marks(cache, limit)
        live = marks.now()
        removed += _litter(cache, dry_run)
        removed += _extractions(cache, live, dry_run)
        names = iter(list(cache.blobs.names()))
    kept = 0
    while turn := list(islice(names, _TURN)):
        with cache.collecting():
            live = marks.now()
            for digest, size in turn:
                if digest in live:
                    kept += 1
                    continue
                removed.append(Removed(digest, size, "no lease or recent record needs it"))
                if not dry_run:
                    cache.blobs.delete(digest)
    if not dry_run:
        _forget_folders(cache)
        cache.publish_index()
    return Collection(removed, kept)


class _Marks:
    """What is live at this moment; records are read again only when another process has written some."""

    def __init__(self, cache: Cache, limit: int) -> None:
        self._cache, self._limit = cache, limit
        self._version = -1
        self._recorded: set[Digest] = set()

    def now(self) -> set[Digest]:
        version = self._cache.records.version()
        if version != self._version:
            self._version, self._recorded = version, self._cache.records.needed(self._limit)
        return self._recorded.union(self._cache.leased())


def _litter(cache: Cache, dry_run: bool) -> Iterator[Removed]:
    for path in list(cache.blobs.litter()):
        size = os.path.getsize(path)
        if not dry_run:
            with storing("remove what a writer left"):
                os.unlink(path)
        yield Removed(os.path.basename(path), size, "left by a writer that ended early")


def _extractions(cache: Cache, live: set[Digest], dry_run: bool) -> Iterator[Removed]:
    with storing("list the extractions"):
        names = sorted(os.listdir(cache.extractions))
    for name in names:
        path = f"{cache.extractions}/{name}"
        unfinished = name.startswith(".")
        if unfinished or Digest("sha256:" + name) not in live:
            size = _size(path)
            if not dry_run:
                remove_tree(path)
            why = "left by an extraction that ended early" if unfinished else "the tree extracted here is not needed"
            yield Removed(name if unfinished else "sha256:" + name, size, why)


def _forget_folders(cache: Cache) -> None:
    for scope in cache.index.scopes():
        root = scope.partition(":")[2]
        if not os.path.isdir(root):
            cache.index.forget(scope)


def _size(path: str) -> int:
    return sum(os.lstat(os.path.join(folder, file)).st_size for folder, _, files in os.walk(path) for file in files)


def remove_tree(path: str) -> None:
    """Remove a folder of ours, also where it is protected from being written.

    It is renamed first, so that nobody meets half of it under its own name.
    """
    doomed = f"{os.path.dirname(path)}/.doomed-{os.urandom(8).hex()}"
    with storing("remove an extraction"):
        try:
            os.rename(path, doomed)
        except FileNotFoundError:
            return
        if os.path.islink(doomed) or not os.path.isdir(doomed):
            os.unlink(doomed)
            return
        for folder, _, _ in os.walk(doomed):
            os.chmod(folder, 0o700)
        try:
            shutil.rmtree(doomed)
        except FileNotFoundError as error:  # Another process removes it too.
            if os.path.exists(doomed):
                raise StoreUnavailable(f"Could not remove {doomed}", why=str(error)) from error
