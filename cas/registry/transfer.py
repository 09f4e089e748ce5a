"""Transfer of artifacts between local blobs and repositories: blobs, then manifests, then tags."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Lock

from flyte_build.cas.blobs import Blobs
from flyte_build.cas.digest import Digest
from flyte_build.errors import BlobCorrupt, BlobMissing, RegistryCorrupt, RegistryRefused

from .descriptor import Descriptor
from .ledger import Ledger
from .manifest import Manifest
from .repository import Repository

Progress = Callable[[int, int], None]
"""Callback for the moved and the total bytes."""
_PARALLEL = 4
_ATTEMPTS = 4
# Bytes: a larger blob is worth keeping even if the others cannot be fetched.
_LARGE = 8 << 20
_SMALL = 64 << 10  # Bytes: uploading a smaller blob is as fast as checking whether it exists.


class Transfer:
    """Transfers of artifacts, several blobs at a time, in constant memory."""

    def __init__(
        self, blobs: Blobs, ledger: Ledger, progress: Progress = lambda done, total: None
    ) -> None:
        self._blobs, self._ledger, self._progress = blobs, ledger, progress

    def push(self, manifest: Manifest, repository: Repository, tag: str | None = None) -> None:
        """Upload a manifest, with the blobs that it refers to.

        Raises `BlobMissing` for a blob that is not here either, and for a manifest in an index that
        the repository does not have.
        """
        with repository.writing():
            place, blobs = repository.name, manifest.blobs()
            self._send(
                [blob for blob in blobs if not self._ledger.holds(place, blob.digest)], repository
            )
            self._put(manifest, repository, tag)
            self._ledger.hold(place, [blob.digest for blob in blobs])

    def _put(self, manifest: Manifest, repository: Repository, tag: str | None) -> None:
        try:
            repository.put_manifest(manifest, tag)
            return
        except BlobMissing:  # A blob was collected since it was last seen, or never there.
            self._ledger.forget(repository.name)
            if manifest.is_index:
                raise
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

        def again() -> None:
            self._send(manifest.blobs(), repository, anyway=True)
            try:
                repository.put_manifest(manifest, tag)
            except BlobMissing as error:
                raise _NotKept(
                    f"{repository.name} does not keep uploaded blobs", why=error.why
                ) from None

        # More than once: a registry may lose a blob for a moment while several clients upload it.
        Retrying(
            retry=retry_if_exception_type(_NotKept),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random(0, 0.5),
            reraise=True,
        )(again)

    def _send(
        self, blobs: Iterable[Descriptor], repository: Repository, anyway: bool = False
    ) -> None:
        """Upload blobs that the repository does not have yet.

        With `anyway`, all are uploaded: the registry's claim to have them is not trusted then.
        """
        mounts = (
            {}
            if anyway
            else {
                blob.digest: self._ledger.holder_beside(repository.name, blob.digest)
                for blob in blobs
            }
        )

        def send(blob: Descriptor, moved: Callable[[int], None]) -> None:
            if not anyway and blob.size > _SMALL and repository.has(blob):
                moved(blob.size)
                return
            try:
                repository.upload(
                    blob, lambda: self._blobs.open(blob.digest), moved, mounts.get(blob.digest)
                )
            except (RegistryRefused, BlobCorrupt):
                if self._blobs.has(blob.digest) and not self._blobs.verify(blob.digest):
                    raise BlobCorrupt(
                        f"Blob {blob.digest} was corrupt",
                        why="It was not uploaded, and is in quarantine.",
                        hint="Run the command again.",
                    ) from None
                raise

        self._all(list(blobs), send)

    def pull(
        self, digest: Digest, repository: Repository, whole: bool = True, most: int = sys.maxsize
    ) -> Manifest:
        """Fetch a manifest and all blobs that it refers to, and return it.

        Unless `whole`, its config is the only blob that is fetched. Raises `BlobMissing` if
        something is missing, and `RegistryCorrupt`, before fetching anything, if the blobs exceed
        `most` bytes or the free space on the disk.
        """
        if self._blobs.has(digest):
            manifest = Manifest.parse(self._blobs.read(digest))
        elif (found := repository.manifest(digest)) is not None:
            manifest = found
        else:
            raise BlobMissing(f"{repository.name} does not have the manifest {digest}")

        def fetch(blob: Descriptor, moved: Callable[[int], None]) -> None:
            # A large blob becomes visible on its own; small ones do so together, as the syncs would
            # otherwise take longer than the transfer.
            with (
                self._blobs.batch() if blob.size > _LARGE else nullcontext(together) as batch,
                batch.writer() as writer,
            ):
                repository.download(blob, writer, moved)
                writer.finish(blob.digest)

        wanted = [
            blob
            for blob in (manifest.blobs() if whole else (manifest.config,))
            if not self._blobs.has(blob.digest)
        ]
        size, free = sum(blob.size for blob in wanted), shutil.disk_usage(self._blobs.folder).free
        if size > min(most, free):
            raise RegistryCorrupt(
                f"{digest} in {repository.name} is too large",
                why=f"Its declared size is {size:,} bytes; "
                + (f"the disk has {free:,} free." if size > free else f"{most:,} are allowed."),
            )
        with self._blobs.batch() as together:
            self._all(wanted, fetch)
        self._blobs.put(manifest.data)
        self._ledger.hold(repository.name, [blob.digest for blob in manifest.blobs()])
        return manifest

    def _all(
        self, blobs: list[Descriptor], move: Callable[[Descriptor, Callable[[int], None]], None]
    ) -> None:
        """Move blobs, several at a time; the first error ends all."""
        total, done, lock = sum(blob.size for blob in blobs), 0, Lock()
        ended = False

        def moved(count: int) -> None:
            nonlocal done
            if ended:
                raise _Ended
            with lock:
                done += count
                self._progress(done, total)

        if len(blobs) == 1:
            move(blobs[0], moved)
            return
        pool = ThreadPoolExecutor(_PARALLEL)
        try:
            for future in [
                pool.submit(move, blob, moved)
                for blob in sorted(blobs, key=lambda blob: -blob.size)
            ]:
                future.result()
        finally:
            ended = True  # After an error, transfers under way stop at their next piece.
            pool.shutdown(cancel_futures=True)


class _NotKept(RegistryRefused):
    """A blob that was just uploaded is missing."""


class _Ended(Exception):
    """Another transfer has failed, so this one need not go on."""


def missing(blobs: Iterable[Descriptor], repository: Repository) -> list[Descriptor]:
    """Return the blobs that a repository does not have, checking several at a time."""
    wanted = list(blobs)
    with ThreadPoolExecutor(2 * _PARALLEL) as pool:
        return [
            blob
            for blob, there in zip(wanted, pool.map(repository.has, wanted), strict=True)
            if not there
        ]
