"""Leases, which protect artifacts in use from garbage collection.

A lease is a file that lists digests and is locked with flock. The kernel releases the lock when the
owner ends, in whatever way, and regardless of reused pids; so a lease is never left behind and
never taken over. (On a network file system, flock is emulated with byte-range locks: flock(2), "NFS
details".)
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from flyte_build.errors import StoreError, StoreUnavailable

from .digest import Digest
from .os_errors import storing


class Lease:
    """A lease that protects `digests` until `release` is called or this process ends."""

    def __init__(self, folder: str, digests: Iterable[Digest]) -> None:
        self.path = f"{folder}/{os.urandom(8).hex()}.lease"
        with storing("write a lease"):
            # Written under another name, so that no one finds a lease that is not locked yet.
            new = self.path + ".new"
            self._file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            os.write(self._file, json.dumps(list(digests)).encode())
            os.rename(new, self.path)

    def release(self) -> None:
        """End the lease."""
        with storing("end a lease"):
            os.unlink(self.path)
            os.close(self._file)


def is_held(path: str) -> bool:
    """Whether the lease file exists and its owner is alive."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not lockable(file)
    finally:
        os.close(file)


def held(folder: str) -> Iterator[Digest]:
    """Yield the digests of all held leases; leases of ended processes are removed on the way."""
    with storing("read the leases"), os.scandir(folder) as entries:
        for entry in entries:
            try:
                file = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                if lockable(file):
                    _unlink(entry.path)
                elif entry.name.endswith(".lease"):
                    yield from _digests(entry.path, os.read(file, 1 << 24))
            finally:
                os.close(file)


def _digests(path: str, data: bytes) -> list[Digest]:
    """Return the digests in a lease.

    Raises `StoreUnavailable` if it is malformed: as it may protect anything, nothing may be
    collected.
    """
    try:
        return [Digest.parse(digest) for digest in json.loads(data)]
    except (ValueError, TypeError, RecursionError, StoreError):
        raise StoreUnavailable(
            f"Cannot read the lease {path}",
            why="A process holds it, but it is not a list of digests.",
            hint="Delete it if flyte-build did not create it.",
        ) from None


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:  # Its owner has just released it, or given it its final name.
        return


def lockable(file: int) -> bool:
    """Take the lock of the open `file` unless it is held elsewhere; return whether it was free.

    This process then holds the lock until it closes the file.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked_folder(folder: str) -> Iterator[None]:
    """Hold the lock of an existing directory while the body runs, waiting for it if needed.

    For the user's own directories, since it leaves no files in them. Raises `OSError`.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


@contextmanager
def locked(path: str, exclusive: bool) -> Iterator[None]:
    """Hold the lock of the file at `path`, creating it if needed; wait until the lock is free."""
    with storing("lock the store"):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(file)
