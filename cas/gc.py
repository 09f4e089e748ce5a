"""Garbage collection: mark everything that the roots need, and sweep the rest.

Roots are leases, records used within the keep time, and records that are still to be published;
where space is short, the least recently used records are evicted as well. No grace period is
needed: writers hold the cache's shared lock, and deletions happen in short turns under the
exclusive lock, each of which marks anew.
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

_MAKES_ROOM = "least recently used, and space is short"
_UNUSED = "no running task and no recent use needs them"
_LEFT = ("left over from an interrupted command", "unfinished files")
_TURN = 2000  # Deletions under one exclusive lock: about a tenth of a second.


@dataclass(frozen=True, kw_only=True)
class SpaceLimits:
    """Limits of the cache, in bytes.

    It takes at most `max_size`, and less while the disk has less than `min_free` free. To free disk
    space, the cache is never made smaller than `min_size`: when something else fills the disk,
    giving up the cache would not help.
    """

    max_size: int | None = None
    min_free: int = 0
    min_size: int = 0


@dataclass(frozen=True)
class Removed:
    """An item that was (or would be) removed: its digest or name, its size in bytes, and why.

    `what` says which things it is one of, in users' words.
    """

    digest: str
    size: int
    why: str
    what: str = "packs and layers"


@dataclass(frozen=True)
class Collection:
    """Result of a collection: the removed items, and the number of blobs kept.

    `over` is the number of bytes by which the cache still exceeds `max_size`, because they are in
    use; `lacking` is the number of bytes still missing from `min_free`. `complete` is whether there
    was time for everything.
    """

    removed: list[Removed]
    kept: int
    over: int = 0
    lacking: int = 0
    complete: bool = True

    @property
    def bytes(self) -> int:
        """Total size of the removed items, in bytes."""
        return sum(item.size for item in self.removed)


def collect(
    cache: Cache,
    keep: float,
    dry_run: bool,
    space: SpaceLimits = SpaceLimits(),
    seconds: float = float("inf"),
) -> Collection:
    """Remove everything that is needed by no lease and no record used in the last `keep` seconds.

    With `keep=0`, everything without a root goes. More records are evicted until the cache fits
    `space`. After `seconds`, no further work is started. A dry run finds the same things but
    removes nothing. This is safe while tasks, writers and other collections are running.
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
    # First: on a full disk, the database cannot even delete rows.
    removed += _unpacked(cache, marks, surplus, dry_run, deadline)
    if not dry_run:
        with cache.collecting():
            unused = cache.records.unused(
                limit, (use for use in cache.records.uses(limit, owed) if use[0] not in keys)
            )
            cache.records.remove_all([*unused, *keys])
            marks = _Marks(cache, limit, owed, set())  # Records added from now on count.
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
                        _MAKES_ROOM if digest in surplus else _UNUSED,
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
    """Choose the records to evict, and return them with the bytes still over and still lacking."""
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
    """The digests that are live now; they are read again only when another process has written.

    Records in `given_up` do not count.
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
            with storing("remove a leftover temporary file"):
                os.unlink(path)
        yield Removed(os.path.basename(path), size, *_LEFT)


def _folders(cache: Cache) -> list[tuple[str, str]]:
    """Return the paths of all entries that are named by digests, and what each is."""
    places = {
        cache.extractions: "extracted bundles",
        cache.environments: "local environments",
        cache.runtimes: "copies of flyte-build for tasks",
    }
    found = []
    with storing("list extractions and environments"):
        for place, what in places.items():
            if os.path.lexists(place):
                found += [(f"{place}/{name}", what) for name in sorted(os.listdir(place))]
    return found


def _unpacked(
    cache: Cache, marks: _Marks, surplus: set[Digest], dry_run: bool, deadline: float
) -> Iterator[Removed]:
    for path, what in _folders(cache):
        entry = os.path.basename(path)
        name, _, copy = entry.partition("-")
        unfinished = name.startswith(".")
        digest = Digest("sha256:" + name)
        if time.monotonic() >= deadline:
            return
        with cache.collecting():
            # An additional copy of an extraction belongs to one run.
            live = cache.leased() if copy else marks.now()
            if digest in live or not os.path.lexists(path):
                continue
            if not dry_run:
                path = _doom(path)
        size = _size(path)
        if not dry_run:
            _remove_doomed(path)  # Outside of the lock, since it can take long.
        if unfinished:
            yield Removed(entry, size, *_LEFT)
        else:
            yield Removed(digest, size, _MAKES_ROOM if digest in surplus else _UNUSED, what)


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
            except FileNotFoundError:  # Another process is removing it.
                continue
    return size


def remove_tree(path: str) -> None:
    """Remove a directory of the cache, even if it is write-protected.

    It is renamed first, so that no one finds a partial directory under its name.
    """
    _remove_doomed(_doom(path))


def _doom(path: str) -> str:
    """Rename a directory that is to be removed, and return its new path."""
    doomed = f"{os.path.dirname(path)}/.doomed-{os.urandom(8).hex()}"
    with storing("remove an extraction"):
        try:
            os.rename(path, doomed)
        except FileNotFoundError:
            pass  # Another process has renamed it.
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
            except FileNotFoundError:  # Another process is removing it, too.
                continue
