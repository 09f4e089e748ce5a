"""Protocol of repositories, which store manifests, tags and blobs (OCI distribution-spec 1.1)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from flyte_build.cas.blobs import BlobWriter
from flyte_build.cas.digest import Digest

from .descriptor import Descriptor
from .manifest import Manifest
from .name import RepositoryName

Moved = Callable[[int], None]
"""Callback for moved bytes; it gets a negative number when a transfer restarts."""


class Repository(Protocol):
    """A repository: one domain of trust, on a registry or in a directory. Thread-safe.

    Besides the errors listed below, every method may raise `RegistryUnreachable`, `RegistryDenied`,
    `RegistryRefused` and `RegistryCorrupt`.
    """

    name: RepositoryName

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """Return the manifest with a digest or tag, verified, or None if it is missing."""

    def put_manifest(self, manifest: Manifest, tag: str | None = None) -> None:
        """Store a manifest under its digest and `tag`.

        Raises `BlobMissing` if something that it refers to is missing.
        """

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob exists."""

    def download(self, blob: Descriptor, writer: BlobWriter, moved: Moved) -> None:
        """Write a blob's verified bytes to `writer`, without finishing it. Raises `BlobMissing`."""

    def upload(
        self,
        blob: Descriptor,
        source: Callable[[], BinaryIO],
        moved: Moved,
        mount: RepositoryName | None = None,
    ) -> None:
        """Store a blob whose bytes `source` opens.

        `mount` is a repository of the same registry that may already hold it.
        """

    def tags(self) -> list[str]:
        """Return all tags, in no particular order."""

    def delete_manifest(self, digest: Digest) -> None:
        """Delete a manifest and all of its tags, if it exists.

        Raises `RegistryRefused` if deletion is not allowed.
        """

    def writing(self) -> AbstractContextManager[None]:
        """Hold off garbage collection from the first blob to the last tag, as far as it is ours."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold off other holders while looking at tags and moving them, as far as tags are ours."""
