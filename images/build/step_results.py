"""What executing steps came to, kept among the user's data: it does not repeat, so deleting the
cache must not lose it.

A directory that is an OCI image layout. Under a tag made of a project's root and an image's
identity is a manifest whose config is the image's manifest, and whose layers are the image's config
and the layers that executing has made (docs/formats.md).
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
"""What executing a step came to: the image, and those of its layers that executing has made."""
_TYPE = "application/vnd.dev.flyte.executed.v1"
_ROOT = "dev.flyte.root"


class StepResults:
    """What steps of the project in `root` came to, in `folder`."""

    def __init__(self, folder: str, root: str, cache: Cache, counters: Counters) -> None:
        self._root, self._cache = root, cache
        self._layout = LayoutRepository(RepositoryName(folder=folder), counters)
        self._transfer = Transfer(cache.blobs, Ledger(cache.database))

    def keep(self, image: OciImage, layers: Sequence[Descriptor]) -> None:
        """Keep an image of which these layers were made here, unless it is there. Raises
        `RegistryError` and `StoreError`.
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
        """The image of that identity, and its layers that were made here, which are in the cache
        then; None if it is not kept.

        Raises `RegistryError` and `StoreError`.
        """
        for tag in self._layout.tags():
            if tag.endswith(f".{identity.hex}") and (found := self._layout.manifest(tag)):
                kept = self._transfer.pull(found.digest, self._layout)
                image = OciImage.read(kept.config.digest, self._cache.blobs)
                if image.identity != identity:
                    raise RegistryCorrupt(
                        f"{tag} in {self._layout.name} is another image",
                        why=f"It is {image.identity}.",
                    )
                return image, kept.layers[1:]
        return None


def collect(folder: str, keep: float, dry_run: bool) -> Iterator[Removed]:
    """Remove from the directory what was kept more than `keep` seconds ago, and is in the
    flyte.lock of its project no more.
    """
    layout = LayoutRepository(RepositoryName(folder=folder), Counters())
    unused = [each for tag in layout.tags() if (each := _unused(layout, tag, time.time() - keep))]
    for digest, size in layout.sweep(unused, dry_run):
        yield Removed(digest, size, "it was executed, and no flyte.lock has it any more")
    if not dry_run:
        for digest in unused:
            layout.delete_manifest(digest)


def _unused(layout: LayoutRepository, tag: str, before: float) -> Digest | None:
    """The manifest under a tag, if it was kept before that time, in seconds since the epoch, and
    its project does not pin it any more.
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
    ):  # Something of it, or that flyte.lock, is damaged: it may still be needed.
        return None
    return (
        None
        if any(step.digest.hex == tag.rpartition(".")[2] for step in lock.steps)
        else kept.digest
    )
