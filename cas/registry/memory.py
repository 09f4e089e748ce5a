"""Repositories in memory, shared by the threads of a process: no network, no disk."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from flyte_build.cas.blobs import BlobWriter
from flyte_build.cas.digest import Digest
from flyte_build.errors import BlobCorrupt, BlobMissing

from .descriptor import Descriptor
from .manifest import Manifest
from .name import RepositoryName
from .repository import Moved


class MemoryRegistry:
    """A registry in memory: a blob can be mounted from one of its repositories into another."""

    def __init__(self) -> None:
        self._contents: defaultdict[RepositoryName, _Contents] = defaultdict(_Contents)

    def repository(self, name: RepositoryName) -> MemoryRepository:
        """Return the repository of that name; every one of the same name has the same contents."""
        return MemoryRepository(name, self._contents)


class MemoryRepository:
    """One repository of a `MemoryRegistry`."""

    def __init__(self, name: RepositoryName, contents: defaultdict[RepositoryName, _Contents]):
        self.name, self._registry, self._own = name, contents, contents[name]

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """Return the manifest with that digest or tag, or None."""
        digest = reference if isinstance(reference, Digest) else self._own.tags.get(reference)
        return self._own.manifests.get(digest) if digest else None

    def put_manifest(self, manifest: Manifest, tag: str | None = None) -> None:
        """Store a manifest, and tag it. Raises `BlobMissing` if it refers to missing content."""
        named = manifest.manifests if manifest.is_index else manifest.blobs()
        present = self._own.manifests if manifest.is_index else self._own.blobs
        with self._own.lock:
            if missing := [each.digest for each in named if each.digest not in present]:
                raise BlobMissing(f"{self.name} does not have {missing[0]}, which a manifest names")
            self._own.manifests[manifest.digest] = manifest
            if tag is not None:
                self._own.tags[tag] = manifest.digest

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob with that digest and size exists."""
        data = self._own.blobs.get(blob.digest)
        return data is not None and len(data) == blob.size

    def download(self, blob: Descriptor, writer: BlobWriter, moved: Moved) -> None:
        """Write a blob's bytes to `writer`, without finishing it. Raises `BlobMissing`."""
        data = self._own.blobs.get(blob.digest)
        if data is None:
            raise BlobMissing(f"{self.name} does not have {blob.digest}")
        writer.write(data)
        moved(len(data))

    def upload(
        self,
        blob: Descriptor,
        source: Callable[[], BinaryIO],
        moved: Moved,
        mount: RepositoryName | None = None,
    ) -> None:
        """Store a blob: mounted from the repository `mount` if it has it, else read from `source`.

        Raises `BlobCorrupt` if the bytes do not match the digest.
        """
        data = self._registry[mount].blobs.get(blob.digest) if mount else None
        if data is None:
            with source() as stream:
                data = stream.read()
        if Digest.of(data) != blob.digest:
            raise BlobCorrupt(
                f"Blob {blob.digest} is corrupt", why="Its bytes have a different digest."
            )
        self._own.blobs[blob.digest] = data
        moved(len(data))

    def tags(self) -> list[str]:
        """Return all tags, in no particular order."""
        return list(self._own.tags)

    def delete_manifest(self, digest: Digest) -> None:
        """Delete a manifest, if it exists, with all of its tags."""
        with self._own.lock:
            self._own.manifests.pop(digest, None)
            for tag in [tag for tag, tagged in self._own.tags.items() if tagged == digest]:
                del self._own.tags[tag]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Do nothing: blobs of a registry in memory are never collected."""
        yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold an exclusive lock, to read tags and then move them."""
        with self._own.lock:
            yield


class _Contents:
    """Contents of one repository."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.manifests: dict[Digest, Manifest] = {}
        self.tags: dict[str, Digest] = {}
        self.lock = threading.RLock()
