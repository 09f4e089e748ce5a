"""Garbage collection: mark what is reachable from the roots, sweep the rest.

Roots are leases, records used within the keep time, and those that are still to be published; where
space is short, the records that were used least recently are given up too. There is no grace by
age: whoever writes holds the cache's shared lock, and deleting happens in short turns under the
exclusive one, each with marks of its own moment.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from .cache import Cache
from .digest import Digest, Key
from .eviction import evict
from .os_errors import storing
from .records import Use
from .registry.ledger import Ledger

_MAKES_ROOM = "to make room: it was used least recently"
_TURN = 2000  # Deletions under one exclusive lock: about a tenth of a second.


@dataclass(frozen=True, kw_only=True)
class SpaceLimits:
    """What the cache may take, in bytes: at most `max_size`, and less while the disk has not
    `min_free`.

    For the sake of free space it is never made smaller than `min_size`: when something else fills
    the disk, giving up the cache would not help.
    """

    max_size: int | None = None
    min_free: int = 0
    min_size: int = 0


@dataclass(frozen=True)
class Removed:
    """One thing that was (or would be) removed: its digest, its size in bytes, and why."""

    digest: str
    size: int
    why: str


@dataclass(frozen=True)
class Collection:
    """What a collection removed, and how many blobs it kept.

    `over` are the bytes by which the cache is still above its `max_size` (they are in use),
    `lacking` those that the disk still misses to `min_free`; `complete` says whether there was time
    for all.
    """

    removed: list[Removed]
    kept: int
    over: int = 0
    lacking: int = 0
    complete: bool = True

    @property
    def bytes(self) -> int:
        """The sum of the sizes."""
        return sum(item.size for item in self.removed)


def collect(
    cache: Cache,
    keep: float,
    dry_run: bool,
    space: SpaceLimits = SpaceLimits(),
    seconds: float = float("inf"),
) -> Collection:
    """Remove what no lease and no record used within the last `keep` seconds needs; 0 removes all
    that has no root.

    Records are given up beyond that until the cache fits into `space`. After `seconds` nothing more
    is begun. A dry run finds the same things and touches nothing. Safe beside running tasks,
    writers and other collections.
    """
    deadline = time.monotonic() + seconds
    limit = int(time.time() - keep)
    owed = Ledger(cache.database).owed_anywhere()
    is_short = space.max_size is not None or shutil.disk_usage(cache.folder).free < space.min_free
    unpacked = dict(_sizes(cache)) if is_short else {}
    with cache.collecting():
        given_up: list[Use] = []
        over = lacking = 0
        if is_short:
            given_up, over, lacking = _make_room(
                cache, cache.records.uses(limit, owed), space, unpacked
            )
        keys, surplus = (
            {key for key, _, _ in given_up},
            {ref for _, _, refs in given_up for ref in refs},
        )
        marks = _Marks(cache, limit, owed, keys)
        removed = list(_litter(cache, dry_run))
        names = iter(list(cache.blobs.names()))
    # First: a database on a full disk cannot even forget.
    removed += _unpacked(cache, marks, surplus, dry_run, deadline)
    if not dry_run:
        with cache.collecting():
            unused = cache.records.unused(
                limit, (use for use in cache.records.uses(limit, owed) if use[0] not in keys)
            )
            cache.records.remove_all([*unused, *keys])
            marks = _Marks(cache, limit, owed, set())  # What is recorded again from now on counts.
    kept = 0
    while time.monotonic() < deadline and (turn := list(islice(names, _TURN))):
        with cache.collecting():
            live = marks.now()
            for digest, size in turn:
                if digest in live:
                    kept += 1
                    continue
                removed.append(
                    Removed(
                        digest,
                        size,
                        _MAKES_ROOM if digest in surplus else "no lease or recent record needs it",
                    )
                )
                if not dry_run:
                    cache.blobs.delete(digest)
    unseen = len(list(names))
    if not dry_run:
        _forget_folders(cache)
    return Collection(removed, kept + unseen, over, lacking, time.monotonic() < deadline)


def _make_room(
    cache: Cache, uses: list[Use], space: SpaceLimits, unpacked: dict[Digest, int]
) -> tuple[list[Use], int, int]:
    """The records to give up, the bytes that are too many even then, and those that the disk still
    lacks.
    """
    sizes = {**dict(cache.blobs.names()), **unpacked}
    pinned = cache.leased()
    needed = sum(sizes.get(ref, 0) for ref in pinned.union(*(refs for _, _, refs in uses)))
    free = shutil.disk_usage(cache.folder).free + sum(sizes.values()) - needed
    target = needed if space.max_size is None else min(needed, space.max_size)
    if free < space.min_free:
        target = min(target, max(needed - (space.min_free - free), space.min_size))
    given_up, left = evict(uses, sizes, pinned, target)
    over = 0 if space.max_size is None else max(0, left - space.max_size)
    return given_up, over, max(0, space.min_free - (free + needed - left))


class _Marks:
    """What is live at this moment, without the records that are `given_up`; read again only when
    another process has written.
    """

    def __init__(self, cache: Cache, limit: int, owed: list[Key], given_up: set[Key]) -> None:
        self._cache, self._limit, self._owed, self._given_up = cache, limit, owed, given_up
        self._version = -1
        self._recorded: set[Digest] = set()

    def now(self) -> set[Digest]:
        version = self._cache.records.version()
        if version != self._version:
            uses = self._cache.records.uses(self._limit, self._owed)
            self._version, self._recorded = (
                version,
                {ref for key, _, refs in uses if key not in self._given_up for ref in refs},
            )
        return self._recorded.union(self._cache.leased())


def _litter(cache: Cache, dry_run: bool) -> Iterator[Removed]:
    for path in list(cache.blobs.litter()):
        size = os.path.getsize(path)
        if not dry_run:
            with storing("remove what a writer left"):
                os.unlink(path)
        yield Removed(os.path.basename(path), size, "left by a writer that ended early")


def _folders(cache: Cache) -> list[tuple[str, str]]:
    """The directories in which each entry is named by a digest, as path and name, and why such an
    entry is removed.
    """
    places = {
        cache.extractions: "the tree extracted here is not needed",
        cache.environments: "the environment is not needed",
        cache.runtimes: "no task uses this copy of flyte's own code",
    }
    found = []
    with storing("list extractions and environments"):
        for place, why in places.items():
            if os.path.lexists(place):
                found += [(f"{place}/{name}", why) for name in sorted(os.listdir(place))]
    return found


def _unpacked(
    cache: Cache, marks: _Marks, surplus: set[Digest], dry_run: bool, deadline: float
) -> Iterator[Removed]:
    for path, why in _folders(cache):
        entry = os.path.basename(path)
        name, _, copy = entry.partition("-")
        unfinished = name.startswith(".")
        digest = Digest("sha256:" + name)
        if time.monotonic() >= deadline:
            return
        with cache.collecting():
            # A copy of an extraction is for one run.
            live = cache.leased() if copy else marks.now()
            if digest in live or not os.path.lexists(path):
                continue
            if not dry_run:
                path = _doom(path)
        size = _size(path)
        if not dry_run:
            _remove_doomed(path)  # It can take long, and nobody waits for it.
        if unfinished:
            yield Removed(entry, size, "left by an extraction that ended early")
        else:
            yield Removed(digest, size, _MAKES_ROOM if digest in surplus else why)


def _sizes(cache: Cache) -> Iterator[tuple[Digest, int]]:
    yield from (
        (Digest("sha256:" + os.path.basename(path)), _size(path)) for path, _ in _folders(cache)
    )


def _forget_folders(cache: Cache) -> None:
    for scope in cache.index.scopes():
        root = scope.partition(":")[2]
        if not os.path.isdir(root):
            cache.index.forget(scope)


def _size(path: str) -> int:
    size = 0
    for folder, _, files in os.walk(path):
        for file in files:
            try:
                size += os.lstat(os.path.join(folder, file)).st_size
            except FileNotFoundError:  # Another process removes it.
                continue
    return size


def remove_tree(path: str) -> None:
    """Remove a directory of ours, also where it is protected from being written.

    It is renamed first, so that nobody meets half of it under its own name.
    """
    _remove_doomed(_doom(path))


def _doom(path: str) -> str:
    """Take away the name of what is to be removed; its new path."""
    doomed = f"{os.path.dirname(path)}/.doomed-{os.urandom(8).hex()}"
    with storing("remove an extraction"):
        try:
            os.rename(path, doomed)
        except FileNotFoundError:
            pass  # Somebody else has done so.
    return doomed


def _remove_doomed(doomed: str) -> None:
    with storing("remove an extraction"):
        if not os.path.lexists(doomed):
            return
        if os.path.islink(doomed) or not os.path.isdir(doomed):
            os.unlink(doomed)
            return
        while os.path.exists(doomed):
            try:
                for folder, _, _ in os.walk(doomed):
                    os.chmod(folder, 0o700)
                shutil.rmtree(doomed)
            except FileNotFoundError:  # Another process removes it too.
                continue
