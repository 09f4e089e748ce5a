"""Inspection of images: their contents, and why they were built.

It covers images built on this machine, and all that a reference names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.records import Record
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.transfer import Transfer
from flyte_build.errors import NotFound, ReferenceInvalid, StoreError
from flyte_build.text.wording import listed

from .build.builder import reason
from .build.publisher import index_of
from .oci_image import OciImage
from .platforms import linux_here
from .reference import ImageReference

_SHORTEST = 6  # Minimum number of digits of an abbreviated digest.


@dataclass(frozen=True)
class ImageHere:
    """The last image of an environment that was built on this machine, for one platform."""

    env: str
    root: str
    platform: str
    image: OciImage
    why: str

    def document(self) -> dict[str, Any]:
        """Return the image as a JSON value."""
        return {"env": self.env, "root": self.root, **describe(self.image), "why": self.why}


def images_here(cache: Cache) -> Iterator[ImageHere]:
    """Yield the last image of each environment that was built on this machine."""
    for label, record in cache.records.labelled("image"):
        words = label.removeprefix("image:").rsplit(" ", 2)
        if not label.startswith("image:") or len(words) != 3:
            continue
        image = _read(record, cache)
        # Older versions gave such labels to results of steps as well.
        if image and f"{image.platform}/".startswith(f"{words[2]}/"):
            yield ImageHere(words[1], words[0], words[2], image, reason(cache, record.key))


@dataclass(frozen=True)
class FoundImage:
    """An image for one of the available `platforms`; `why` is the build reason, or ""."""

    image: OciImage
    platforms: Sequence[str]
    why: str = ""

    def document(self) -> dict[str, Any]:
        """Return the image as a JSON value."""
        return {**describe(self.image), "platforms": [*self.platforms], "why": self.why}


def find(
    text: str,
    platform: str | None,
    cache: Cache,
    open_repository: Callable[[RepositoryName], Repository],
) -> FoundImage:
    """Find an image by a reference, by the name of an environment, or by a digest.

    The digest may be abbreviated, and is that of an image on this machine. Of several platforms,
    the requested one is returned, else this machine's, else the first. Raises `NotFound` and
    `RegistryError`.
    """
    digits = text.removeprefix("sha256:")
    here = [*images_here(cache)]
    for each in here:
        alike = [other for other in here if (other.root, other.env) == (each.root, each.env)]
        if text == each.env or _names(digits, index_of([other.image for other in alike]).digest):
            found = alike[_choose(text, [other.platform for other in alike], platform)]
            return FoundImage(found.image, [other.platform for other in alike], found.why)
        if _names(digits, each.image.manifest.digest) or _names(digits, each.image.identity):
            _choose(text, [each.platform], platform)
            return FoundImage(each.image, [each.platform], each.why)
    try:
        if not any(sign in text for sign in "/:@"):
            raise ReferenceInvalid(
                text, why="It is neither an environment with an image here nor a reference."
            )
        reference = ImageReference.parse(text)
    except ReferenceInvalid as error:
        raise NotFound(
            f"Cannot find the image {text}",
            why=error.why,
            hint="Run `flyte get image` to list the images that were built here.",
        ) from None
    repository = open_repository(reference.name)
    manifest = repository.manifest(reference.digest or reference.tag)
    platforms: list[str] = []
    if manifest is not None and manifest.is_index:
        offered = zip(manifest.manifests, manifest.document["manifests"], strict=True)
        images = [
            (name, each)
            for each, entry in offered
            if (name := _platform(entry.get("platform"))) != "unknown/unknown"
        ]
        platforms = [name for name, _ in images]
        manifest = (
            repository.manifest(images[_choose(text, platforms, platform)][1].digest)
            if images
            else None
        )
    if manifest is None:
        raise NotFound(
            f"Cannot find the image {reference}", why=f"{reference.name} does not contain it."
        )
    Transfer(cache.blobs, Ledger(cache.database)).pull(manifest.digest, repository, whole=False)
    image = OciImage.read(manifest.digest, cache.blobs)
    if not platforms:
        platforms = [image.platform]
        _choose(text, platforms, platform)
    return FoundImage(image, platforms)


def _names(digits: str, digest: Digest) -> bool:
    """Whether `digits` are the first ones of the digest, and enough of them."""
    return len(digits) >= _SHORTEST and digest.hex.startswith(digits)


def _platform(said: Any) -> str:
    """Return the platform of an index entry, like `linux/arm/v7` (image-spec, "Image Index").

    `unknown/unknown` marks entries that are not images.
    """
    parts = (
        [said.get(name) for name in ("os", "architecture", "variant")]
        if isinstance(said, dict)
        else []
    )
    return "/".join(str(part) for part in parts if part) or "unknown"


def _choose(text: str, platforms: Sequence[str], wanted: str | None) -> int:
    """Return the index of the platform to use; `linux/arm64` also matches `linux/arm64/v8`.

    Raises `NotFound` if the wanted one is not among them.
    """
    meant = wanted or linux_here()
    for at, platform in enumerate(platforms):
        if f"{platform}/".startswith(f"{meant}/"):
            return at
    if wanted:
        raise NotFound(
            f"The image {text} is not available for {wanted}",
            why=f"It is available for {listed(platforms)}.",
        )
    return 0


def describe(image: OciImage) -> dict[str, Any]:
    """Return the contents of an image as a JSON value.

    It lists the layers, with their sizes in bytes, and the packages that were installed.
    """
    layers = [
        {"digest": layer.digest, "size": layer.size, "what": what}
        for layer, what in zip(image.manifest.layers, image.contents, strict=True)
    ]
    packages = sorted(
        name for what in image.contents if what.startswith("packages ") for name in what.split()[1:]
    )
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


def _read(record: Record, cache: Cache) -> OciImage | None:
    try:
        return OciImage.read(record.artifact, cache.blobs)
    except StoreError:
        return None
