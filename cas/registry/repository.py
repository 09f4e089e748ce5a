"""The repository protocol: where manifests, tags and blobs of one domain of trust are kept (OCI
distribution-spec 1.1).
"""

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
"""Is told of bytes that were moved; of a negative number when a transfer begins anew."""


class Repository(Protocol):
    """One repository. Besides what is named below, every method raises `RegistryUnreachable`,
    `RegistryDenied`,

    `RegistryRefused` and `RegistryCorrupt`, each for what its name says. Safe to use from several
    threads.
    """

    name: RepositoryName

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """The manifest of a digest or under a tag, verified; None if it is not there."""

    def put_manifest(self, manifest: Manifest, tag: str | None = None) -> None:
        """Keep a manifest, under its digest and the tag. Raises `BlobMissing` if something that it
        names is not there.
        """

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob is there."""

    def download(self, blob: Descriptor, writer: BlobWriter, moved: Moved) -> None:
        """Write a blob's bytes, verified: `writer` holds all of them then, and is not finished.
        Raises `BlobMissing`.
        """

    def upload(
        self,
        blob: Descriptor,
        source: Callable[[], BinaryIO],
        moved: Moved,
        mount: RepositoryName | None = None,
    ) -> None:
        """Keep a blob whose bytes `source` opens. It may be in `mount`, a repository of the same
        registry, already.
        """

    def tags(self) -> list[str]:
        """All tags, in no order."""

    def delete_manifest(self, digest: Digest) -> None:
        """Remove a manifest and all of its tags; one that is gone already is fine. Raises
        `RegistryRefused` where it may not be.
        """

    def writing(self) -> AbstractContextManager[None]:
        """Hold this from the first blob to the last tag: nothing is collected meanwhile, where it
        is us who collect.
        """

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold this to look at tags and then to move them: nobody else who holds it comes in
        between, where it is us who keep the tags.
        """
