"""Results of executed steps, stored with the user's data, since they cannot be reproduced.

Deleting the cache must not lose them. The directory is an OCI image layout. A tag made of the
project root and the image's identity names a manifest, whose config is the image's manifest, and
whose layers are the image's config and the layers that the step added (docs/formats.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.gc import Removed
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.layout import LayoutRepository
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.published_record import CREATED
from flyte_build.cas.registry.transfer import Transfer
from flyte_build.errors import FlyteError, RegistryCorrupt
from flyte_build.images.lock import lockfile
from flyte_build.images.oci_image import OciImage

StepResult = tuple[OciImage, Sequence[Descriptor]]
"""Result of a step: the image, and those of its layers that the step added."""
_TYPE = "application/vnd.dev.flyte.executed.v1"
_ROOT = "dev.flyte.root"


class StepResults:
    """Store in `folder` of the results of steps, for the project at `root`."""

    def __init__(self, folder: str, root: str, cache: Cache, counters: Counters) -> None:
        self._root, self._cache = root, cache
        self._layout = LayoutRepository(RepositoryName(folder=folder), counters)
        self._transfer = Transfer(cache.blobs, Ledger(cache.database))

    def keep(self, image: OciImage, layers: Sequence[Descriptor]) -> None:
        """Store an image with the layers that its step added, unless it is stored already.

        Raises `RegistryError` and `StoreError`.
        """
        tag = f"{Digest.of(self._root.encode()).short}.{image.identity.hex}"
        if self._layout.manifest(tag):
            return
        created = datetime.fromtimestamp(int(time.time()), UTC).isoformat()
        about = {_ROOT: self._root, CREATED: created}
        kept = Manifest.of_layers(
            image.manifest.descriptor,
            [image.manifest.config, *layers],
            artifact_type=_TYPE,
            annotations=about,
        )
        self._transfer.push(kept, self._layout, tag)

    def bring(self, identity: Digest) -> StepResult | None:
        """Return the image of an identity, with the layers that its step added, or None.

        All of them are in the cache then. Raises `RegistryError` and `StoreError`.
        """
        for tag in self._layout.tags():
            if tag.endswith(f".{identity.hex}") and (found := self._layout.manifest(tag)):
                kept = self._transfer.pull(found.digest, self._layout)
                image = OciImage.read(kept.config.digest, self._cache.blobs)
                if image.identity != identity:
                    raise RegistryCorrupt(
                        f"{tag} in {self._layout.name} is not the expected image",
                        why=f"Its identity is {image.identity}.",
                    )
                return image, kept.layers[1:]
        return None


def collect(folder: str, keep: float, dry_run: bool) -> Iterator[Removed]:
    """Remove stored results that the flyte.lock of their project does not pin any more.

    Results stored within the last `keep` seconds stay. With `dry_run`, they are only yielded.
    """
    layout = LayoutRepository(RepositoryName(folder=folder), Counters())
    unused = [each for tag in layout.tags() if (each := _unused(layout, tag, time.time() - keep))]
    for digest, size in layout.sweep(unused, dry_run):
        yield Removed(digest, size, "no flyte.lock pins them any more", "results of build steps")
    if not dry_run:
        for digest in unused:
            layout.delete_manifest(digest)


def _unused(layout: LayoutRepository, tag: str, before: float) -> Digest | None:
    """Return the digest of the manifest under a tag if it may be removed, else None.

    That is so if it was stored before the time `before` (seconds since the epoch), and its project
    does not pin it any more.
    """
    try:
        kept = layout.manifest(tag)
        if kept is None or datetime.fromisoformat(kept.annotations[CREATED]).timestamp() > before:
            return None
        lock, _ = lockfile.read(f"{kept.annotations[_ROOT]}/{lockfile.NAME}")
    except (
        FlyteError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
    ):  # The manifest or that flyte.lock is damaged: the result may still be needed.
        return None
    return (
        None
        if any(step.digest.hex == tag.rpartition(".")[2] for step in lock.steps)
        else kept.digest
    )
