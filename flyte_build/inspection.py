"""Looking at images: those that were built here, and any that a reference names; what they hold, and why they were built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flyte_build.cas.cache import Cache
from flyte_build.cas.records import Record
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.transfer import Transfer
from flyte_build.errors import NotFound, ReferenceInvalid, StoreError
from flyte_build.images.config import Image
from flyte_build.images.platforms import linux_here
from flyte_build.images.reference import Reference

from .imaging import reason

_SHORTEST = 6  # Digits that a digest is abbreviated to at least.


@dataclass(frozen=True)
class ImageHere:
    """The last image of an environment that was built on this machine, for one platform."""

    env: str
    root: str
    platform: str
    image: Image
    why: str

    def document(self) -> dict[str, Any]:
        """The same as a JSON value."""
        return {"env": self.env, "root": self.root, **describe(self.image), "why": self.why}


def images_here(cache: Cache) -> Iterator[ImageHere]:
    """The last image of each environment that was built here."""
    for label, record in cache.records.labelled("image"):
        words = label.removeprefix("image:").rsplit(" ", 2)
        if len(words) == 3 and "/" in words[2] and (image := _read(record, cache)):
            yield ImageHere(words[1], words[0], words[2], image, reason(cache, record.key))


def find(text: str, cache: Cache, open_repository: Callable[[RepositoryName], Repository]) -> tuple[Image, str]:
    """The image of a reference, of an environment's name, or of a digest (or its first digits) of one here; and why it was built.

    Raises `NotFound` and `RegistryError`.
    """
    digits = text.removeprefix("sha256:")
    for each in images_here(cache):
        digests = (each.image.manifest.digest, each.image.identity)
        if text == each.env or (len(digits) >= _SHORTEST and any(digest.hex.startswith(digits) for digest in digests)):
            return each.image, each.why
    try:
        if not any(sign in text for sign in "/:@"):
            raise ReferenceInvalid(text, why="It is no environment with an image here, and no reference.")
        reference = Reference.parse(text)
    except ReferenceInvalid as error:
        raise NotFound(f"There is no image {text}", why=error.why, hint="`flyte get image` lists those that were built here.") from None
    repository = open_repository(reference.name)
    manifest = repository.manifest(reference.digest or reference.tag)
    if manifest is not None and manifest.is_index:
        system, _, machine = linux_here().partition("/")
        platforms = [each.get("platform") or {} for each in manifest.document["manifests"]]
        at = next((at for at, said in enumerate(platforms) if (said.get("os"), said.get("architecture")) == (system, machine)), 0)
        manifest = repository.manifest(manifest.manifests[at].digest) if manifest.manifests else None
    if manifest is None:
        raise NotFound(f"There is no image {reference}", why=f"{reference.name} does not have it.")
    Transfer(cache.blobs, Ledger(cache.database)).pull(manifest.digest, repository, whole=False)
    return Image.read(manifest.digest, cache.blobs), ""


def describe(image: Image) -> dict[str, Any]:
    """What is in an image, as a JSON value: its layers with their sizes in bytes, and the packages that were put in."""
    layers = [
        {"digest": layer.digest, "size": layer.size, "what": what}
        for layer, what in zip(image.manifest.layers, image.contents, strict=True)
    ]
    packages = sorted(name for what in image.contents if what.startswith("packages ") for name in what.split()[1:])
    return {
        "digest": image.manifest.digest,
        "identity": image.identity,
        "platform": image.platform,
        "size": sum(layer.size for layer in image.manifest.layers),
        "layers": layers,
        "packages": packages,
        "variables": image.env,
        "workdir": image.settings.get("WorkingDir") or "/",
        "user": image.settings.get("User") or "root",
    }


def _read(record: Record, cache: Cache) -> Image | None:
    try:
        return Image.read(record.artifact, cache.blobs)
    except StoreError:
        return None
