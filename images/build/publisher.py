"""Pushing images: what the registry has stays where it is, what another repository of it has is
mounted, the rest is sent once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flyte_build.cas.cache import Cache
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.repository import Moved, Repository
from flyte_build.cas.registry.transfer import Progress, Transfer, missing
from flyte_build.errors import BlobMissing
from flyte_build.images.oci_image import OciImage


class ImagePublisher:
    """Pushes images to one repository. `sources` are repositories that may have layers which this
    machine has not.
    """

    def __init__(
        self,
        repository: Repository,
        cache: Cache,
        sources: Sequence[Repository] = (),
        progress: Progress = lambda done, total: None,
    ) -> None:
        self._repository, self._cache, self._sources = (
            repository,
            cache,
            LayerSources(cache, sources),
        )
        self._ledger = Ledger(cache.database)
        self._transfer = Transfer(cache.blobs, self._ledger, progress)

    def push(self, image: OciImage, tag: str | None = None) -> None:
        """Keep an image there, under a tag if one is named. Its config is put into the store, if
        need be.

        Raises `BlobMissing` for a layer that nobody has, and `RegistryError`.
        """
        self._cache.blobs.put(image.config)
        try:
            self._transfer.push(image.manifest, self._repository, tag)
            return
        except BlobMissing:  # A base's layer that could not be mounted, and is not on this machine.
            self._sources.bring(missing(image.manifest.blobs(), self._repository))
        self._transfer.push(image.manifest, self._repository, tag)

    def push_all(self, images: Sequence[OciImage], tag: str) -> Manifest:
        """Keep an image for several platforms under a tag; the index that names them all is given
        (or the manifest of one alone).
        """
        if len(images) == 1:
            self.push(images[0], tag)
            return images[0].manifest
        for image in images:
            self.push(image)
        index = index_of(images)
        self._transfer.push(index, self._repository, tag)
        return index


class LayerSources:
    """Where layers are that are not on this machine: `repositories`, in order."""

    def __init__(
        self, cache: Cache, repositories: Iterable[Repository], moved: Moved = lambda count: None
    ) -> None:
        self._cache, self._repositories, self._moved = cache, tuple(repositories), moved

    def bring(self, layers: Iterable[Descriptor]) -> None:
        """Have these layers on this machine. Raises `BlobMissing` for one that nobody has."""
        for layer in layers:
            if not self._cache.blobs.has(layer.digest):
                self._fetch(layer)

    def _fetch(self, layer: Descriptor) -> None:
        for repository in self._repositories:
            try:
                with self._cache.blobs.batch() as batch, batch.writer() as writer:
                    repository.download(layer, writer, self._moved)
                    writer.finish(layer.digest)
                return
            except BlobMissing:
                continue
        raise BlobMissing(
            f"The layer {layer.digest} is neither on this machine nor where its base was",
            hint="Build the image again: flyte build --force",
        )


def index_of(images: Sequence[OciImage]) -> Manifest:
    """The index of images for several platforms (image-spec 1.1, image-index.md), sorted by
    platform.
    """
    entries = []
    for image in sorted(images, key=lambda each: each.platform):
        system, _, machine = image.platform.partition("/")
        entries.append((image.manifest.descriptor, {"os": system, "architecture": machine}))
    return Manifest.of_platforms(entries)
