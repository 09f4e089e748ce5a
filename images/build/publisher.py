"""Pushing images: existing layers are reused, layers of other repositories mounted, others sent."""

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
    """Publisher of images in one repository.

    `sources` are repositories that may contain layers that this machine lacks.
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
        """Push an image, under a tag if one is given; its config is put into the store, too.

        Raises `BlobMissing` for a layer that no source has, and `RegistryError`.
        """
        self._cache.blobs.put(image.config)
        try:
            self._transfer.push(image.manifest, self._repository, tag)
            return
        except BlobMissing:  # A layer of the base cannot be mounted, and is not on this machine.
            self._sources.bring(missing(image.manifest.blobs(), self._repository))
        self._transfer.push(image.manifest, self._repository, tag)

    def push_all(self, images: Sequence[OciImage], tag: str) -> Manifest:
        """Push images for several platforms under a tag, and return the index of them all.

        For a single image, its manifest is returned instead.
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
    """Repositories to fetch missing layers from, in order of preference."""

    def __init__(
        self, cache: Cache, repositories: Iterable[Repository], moved: Moved = lambda count: None
    ) -> None:
        self._cache, self._repositories, self._moved = cache, tuple(repositories), moved

    def bring(self, layers: Iterable[Descriptor]) -> None:
        """Fetch the missing ones of these layers.

        Raises `BlobMissing` for a layer that no repository has.
        """
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
            f"Cannot find the layer {layer.digest}",
            why="It is neither on this machine nor in the repository of its base.",
            hint="Build the image again with `flyte build --force`.",
        )


def index_of(images: Sequence[OciImage]) -> Manifest:
    """Return the index of images for several platforms, sorted by platform.

    See image-spec 1.1, image-index.md.
    """
    entries = []
    for image in sorted(images, key=lambda each: each.platform):
        system, _, machine = image.platform.partition("/")
        entries.append((image.manifest.descriptor, {"os": system, "architecture": machine}))
    return Manifest.of_platforms(entries)
