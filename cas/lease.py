"""Leases: what is in use now and must not be collected.

A lease is a locked file (flock) that lists digests. The lock ends with its owner, however the owner
ends and whatever process takes its pid, so a lease can be neither forgotten nor stolen. (On a
network file system, flock is emulated with byte-range locks: flock(2), "NFS details".)
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
    """Keeps `digests` from being collected until `release`, or until this process ends."""

    def __init__(self, folder: str, digests: Iterable[Digest]) -> None:
        self.path = f"{folder}/{os.urandom(8).hex()}.lease"
        with storing("write a lease"):
            # Written under another name, so that nobody meets a lease that is not locked yet.
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
    """Whether the lease in that file is there, and its owner lives."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not lockable(file)
    finally:
        os.close(file)


def held(folder: str) -> Iterator[Digest]:
    """The digests of all leases that are held; those of dead owners are removed on the way."""
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
    """The digests in a lease. Raises `StoreUnavailable` for what is none: what it keeps is not
    known, so nothing may be collected.
    """
    try:
        return [Digest.parse(digest) for digest in json.loads(data)]
    except (ValueError, TypeError, RecursionError, StoreError):
        raise StoreUnavailable(
            f"The lease {path} cannot be read",
            why="It is held by a process, and says nothing.",
            hint="Delete it if it is not flyte's.",
        ) from None


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:  # Its owner released it, or gave it its name, in between.
        return


def lockable(file: int) -> bool:
    """Whether nobody holds the open `file`'s lock; this process then holds it until it closes the
    file.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked_folder(folder: str) -> Iterator[None]:
    """Hold the lock of a directory, which is there, while the body runs; waits for it. For the
    user's own directories: nothing is left in them. Raises `OSError`.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


@contextmanager
def locked(path: str, exclusive: bool) -> Iterator[None]:
    """Hold the lock of the file at `path` (made if need be) while the body runs; waits for it."""
    with storing("lock the store"):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(file)
