"""Blobs: bytes in a directory, each named by its digest (OCI image-layout, "Blobs").

A blob becomes visible only once all of its bytes are durable: they are written to a temporary file
in the same directory, synced, and renamed. Writers hold the cache's shared lock, so a temporary
file that is found while no one holds it is left over from an interrupted write.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from functools import cached_property
from types import TracebackType
from typing import BinaryIO, Protocol

from flyte_build.errors import BlobCorrupt, BlobMissing

from .counters import Counters
from .digest import Digest, is_hex
from .folder import make_below, mode_in
from .hash import running_sha256
from .os_errors import storing, unavailable

TEMPORARY = ".writing-"


class BlobReader(Protocol):
    """A source of blobs."""

    def has(self, digest: Digest) -> bool:
        """Whether a blob with that digest exists; its bytes are not checked."""

    def read(self, digest: Digest) -> bytes:
        """Return all bytes of a blob, verified.

        Raises `BlobMissing`, or `BlobCorrupt` after moving the blob to quarantine.
        """

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob unverified: the caller must verify its bytes. Raises `BlobMissing`."""


class Blobs:
    """The blobs in `folder`; corrupt ones are moved to `quarantine`."""

    def __init__(self, folder: str, quarantine: str, counters: Counters) -> None:
        self.folder, self._quarantine, self._counters = folder, quarantine, counters

    @cached_property
    def mode(self) -> int:
        """Permissions of blobs: read-only, for everyone who can read the directory."""
        return mode_in(self.folder) & 0o444

    def path(self, digest: Digest) -> str:
        """Return the path of the blob with that digest, existing or not."""
        return f"{self.folder}/{digest.hex}"

    def has(self, digest: Digest) -> bool:
        """Whether a blob with that digest exists as a regular file; its bytes are not checked."""
        return os.path.isfile(self.path(digest))

    def has_all(self, digests: Iterable[Digest]) -> bool:
        """Whether blobs with all of those digests exist."""
        return all(map(self.has, digests))

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob unverified: the caller must verify its bytes. Raises `BlobMissing`."""
        try:
            return open_file(self.path(digest))
        except FileNotFoundError:
            raise _missing(digest) from None

    def read(self, digest: Digest) -> bytes:
        """Return all bytes of a blob, verified.

        Raises `BlobMissing`, or `BlobCorrupt` after moving the blob to quarantine.
        """
        with storing("read a blob"), self.open(digest) as stream:
            data = stream.read()
        self._counters.add(bytes_hashed=len(data))
        if Digest.of(data) != digest:
            raise self.condemn(digest, f"Its {len(data)} bytes have a different digest")
        return data

    def verify(self, digest: Digest) -> bool:
        """Whether the bytes of a blob match its digest; if not, the blob is moved to quarantine.

        Takes constant memory. Raises `BlobMissing`.
        """
        with storing("read a blob"), self.open(digest) as stream:
            sha256 = running_sha256()
            while piece := stream.read(1 << 20):
                sha256.update(piece)
        actual = Digest.from_hash(sha256)
        if actual != digest:
            self.condemn(digest, "Its bytes have a different digest")
        return actual == digest

    def condemn(self, digest: Digest, what: str) -> BlobCorrupt:
        """Move a corrupt blob to quarantine, and return the error to raise.

        It is safe if another process has moved the blob already.
        """
        with storing("move a corrupt blob to quarantine"):
            make_below(self._quarantine)
            try:
                os.replace(self.path(digest), f"{self._quarantine}/{digest.hex}")
            except FileNotFoundError:
                return BlobCorrupt(
                    f"Blob {digest} was corrupt",
                    why=f"{what}. It is in quarantine already.",
                    hint="Run the command again.",
                )
        return BlobCorrupt(
            f"Blob {digest} is corrupt",
            why=f"{what}. It was moved to {self._quarantine}.",
            hint="Run the command again.",
        )

    def put(self, data: bytes) -> Digest:
        """Store one blob durably, unless it exists already, and return its digest."""
        with self.batch() as batch:
            return batch.add(data)

    def batch(self) -> Batch:
        """Return a batch of blobs that become visible together; see `Batch`."""
        return Batch(self, self._counters)

    def names(self) -> Iterator[tuple[Digest, int]]:
        """Yield every blob's digest and its size in bytes, in no particular order.

        Files that are not named like a blob are skipped.
        """
        with storing("list the blobs"), os.scandir(self.folder) as entries:
            for entry in entries:
                if is_hex(entry.name):
                    try:
                        size = entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:  # Another process has deleted it.
                        continue
                    yield Digest("sha256:" + entry.name), size

    def litter(self) -> Iterator[str]:
        """Yield the paths of leftover temporary files; call it only while no one is writing."""
        with storing("list the blobs"), os.scandir(self.folder) as entries:
            yield from (entry.path for entry in entries if entry.name.startswith(TEMPORARY))

    def delete(self, digest: Digest) -> None:
        """Delete a blob, if it exists."""
        with storing("delete a blob"):
            try:
                os.unlink(self.path(digest))
            except FileNotFoundError:
                return


class Batch:
    """Blobs that are written together, from any thread, and become visible when the body ends.

    Each is synced while the next is written. If the body raises, no blob becomes visible and the
    temporary files are removed.
    """

    def __init__(self, blobs: Blobs, counters: Counters) -> None:
        self._blobs, self.counters = blobs, counters
        self._written: dict[str, Digest] = {}
        self._syncs: list[_Sync] = []

    def __enter__(self) -> Batch:
        return self

    def add(self, data: bytes) -> Digest:
        """Write `data` as a blob, unless that blob exists already, and return its digest."""
        self.counters.add(bytes_hashed=len(data))
        digest = Digest.of(data)
        if not self._blobs.has(digest):
            with BlobWriter(self) as writer:
                writer.write(data)
                writer.finish(digest)
        return digest

    def writer(self) -> BlobWriter:
        """Return a writer for a blob that comes in pieces, in constant memory."""
        return BlobWriter(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        errors = [error for sync in self._syncs if (error := sync.error())]
        if kind is None and not errors:
            with storing("name a blob"):
                for path, digest in self._written.items():
                    os.rename(path, self._blobs.path(digest))
                if self._written:
                    sync_folder(self._blobs.folder)
            return
        for path in self._written:
            _unlink(path)
        if kind is None:
            raise unavailable("write a blob", errors[0])

    def _take(self, file: int, path: str, digest: Digest) -> None:
        """Sync and close a finished file in the background, once the previous one is synced."""
        self._written[path] = digest
        if self._syncs:
            self._syncs[-1].error()  # Wait, so that few files are open at a time.
        self._syncs.append(_Sync(file))


class BlobWriter:
    """A blob of a batch, written piece by piece; without `finish` it leaves nothing behind."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._path = f"{batch._blobs.folder}/{TEMPORARY}{os.urandom(8).hex()}"
        with storing("write a blob"):
            self._file = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, batch._blobs.mode
            )
        self._sha256 = running_sha256()
        self.size = 0

    def __enter__(self) -> BlobWriter:
        return self

    def write(self, data: bytes | memoryview) -> int:
        """Append all of `data`, and return its length."""
        self._sha256.update(data)
        with storing("write a blob"):
            write_all(self._file, data)
        self.size += len(data)
        return len(data)

    def restart(self) -> None:
        """Discard everything written so far, to start again."""
        with storing("write a blob"):
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
        self._sha256 = running_sha256()
        self.size = 0

    @property
    def digest(self) -> Digest:
        """Digest of the bytes written so far."""
        return Digest.from_hash(self._sha256)

    def finish(self, digest: Digest | None = None) -> Digest:
        """Hand the blob over to its batch, to be synced, and return its digest.

        Pass `digest` if it is already known, to save computing it.
        """
        if digest is None:
            self._batch.counters.add(bytes_hashed=self.size)
            digest = self.digest
        file, self._file = self._file, -1
        self._batch._take(file, self._path, digest)
        self._batch.counters.add(blobs_written=1, bytes_written=self.size)
        return digest

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file >= 0:
            os.close(self._file)
        if self._path not in self._batch._written:
            _unlink(self._path)


class _Sync:
    """A background sync of a file, which then closes it."""

    def __init__(self, file: int) -> None:
        from threading import Thread

        self._file = file
        self._error: OSError | None = None
        self._thread: Thread | None = Thread(target=self._run)
        try:
            self._thread.start()
        except RuntimeError:  # No more threads are allowed: sync right here.
            self._thread = None
            self._run()

    def _run(self) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            self._error = error
        finally:
            os.close(self._file)

    def error(self) -> OSError | None:
        """Wait for the sync, and return the error that it met, if any."""
        if self._thread:
            self._thread.join()
        return self._error


def open_file(path: str) -> BinaryIO:
    """Open a regular file for reading, unbuffered.

    Raises `FileNotFoundError` also for a pipe or a device, since reading one could block.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FileNotFoundError(errno.ENOENT, "Not a regular file", path)
    return open(file, "rb", buffering=0)


def write_all(file: int, data: bytes | memoryview) -> None:
    """Write all of `data` to a file descriptor, in as many writes as it takes."""
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, memoryview(data)[written:])


def sync_folder(path: str) -> None:
    """Make the names in a directory durable."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # Garbage collection removes the file later.
        return


def _missing(digest: Digest) -> BlobMissing:
    return BlobMissing(
        f"Blob {digest} is not in the store", hint="Run the command again: it will be rebuilt."
    )
