"""Base images: resolving references, and finding the Python inside, once for each digest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import key
from flyte_build.cas.records import Record
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.transfer import Progress, Transfer
from flyte_build.errors import BlobMissing, ImageBuildError, RegistryCorrupt
from flyte_build.images.docker.load import Fetch
from flyte_build.images.lock.pins import PinnedBase
from flyte_build.images.oci_image import OciImage, check
from flyte_build.images.platforms import Interpreter, linux_here
from flyte_build.images.reference import ImageReference

from .base_scan import BaseScan

KIND, _FORMAT = "base", 1
Open = Callable[[RepositoryName], Repository]


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base image for one platform.

    `place` is its repository (None: the image exists only on this machine). `interpreter` is its
    Python, or None. `links` maps symbolic links in `/` and one directory below to their targets.
    `musl` tells whether its C library is musl, which manylinux wheels cannot use.
    """

    image: OciImage
    place: RepositoryName | None
    interpreter: Interpreter | None
    links: Mapping[str, str]
    musl: bool


class Bases:
    """Base images by reference.

    Findings are recorded in the cache, and repositories are opened only when they are needed.
    """

    def __init__(
        self, cache: Cache, open_repository: Open, progress: Progress = lambda done, total: None
    ) -> None:
        self._cache, self._open = cache, open_repository
        self._transfer = Transfer(cache.blobs, Ledger(cache.database), progress)

    def look_up(self, reference: str, with_python: bool = True) -> PinnedBase:
        """Return the digest that a reference names now, with the Python inside if `with_python`.

        To find the Python, the image's layers are scanned, once. Raises `ImageBuildError` if the
        image does not exist, and `RegistryError`.
        """
        found = ImageReference.parse(reference)
        manifest = self._open(found.name).manifest(found.digest or found.tag)
        if manifest is None:
            raise _absent(found)
        if not with_python:
            return PinnedBase(reference=reference, digest=manifest.digest, python="")
        platforms = _platforms(manifest)
        platform = (
            linux_here() if not platforms or linux_here() in platforms else next(iter(platforms))
        )
        pinned = PinnedBase(reference=reference, digest=manifest.digest, python="")
        interpreter = self.get(pinned, platform if platforms else "").interpreter
        return PinnedBase(
            reference=reference,
            digest=manifest.digest,
            python=interpreter.version if interpreter else "",
        )

    def get(self, pinned: PinnedBase, platform: str) -> Base:
        """Return the base with a pinned digest for one platform ("": for its only one).

        Raises `ImageBuildError` and `RegistryError`.
        """
        reference = ImageReference.parse(pinned.reference)
        record = self._cache.records.find(_key(pinned.digest, platform))
        if record is None or not self._cache.blobs.has_all(record.refs):
            record = self._inspect(reference, pinned.digest, platform)
        _, manifest, _ = record.refs  # In the order of `_record`.
        image = OciImage.read(manifest, self._cache.blobs)
        return Base(
            image=image, place=reference.name, **_read(self._cache.blobs.read(record.artifact))
        )

    def of_image(self, image: OciImage, fetch: Fetch) -> Base:
        """Return a base for an image whose manifest and config are on this machine.

        Its layers are fetched if they have to be scanned.
        """
        known = key(KIND, _FORMAT, {"config": image.identity})
        record = self._cache.records.find(known)
        if record is None or not self._cache.blobs.has_all(record.refs):
            fetch(image.manifest.layers)
            record = self._record(image, known, {"config": image.identity})
        return Base(image=image, place=None, **_read(self._cache.blobs.read(record.artifact)))

    def _inspect(self, reference: ImageReference, digest: Digest, platform: str) -> Record:
        repository = self._open(reference.name)
        manifest = repository.manifest(digest)
        if manifest is not None and manifest.is_index:
            manifest = repository.manifest(_chosen(manifest, reference, platform))
        if manifest is None:
            raise _absent(reference)
        try:
            self._transfer.pull(manifest.digest, repository)
        except BlobMissing as error:
            raise ImageBuildError(
                f"The base {reference} is incomplete", why=f"{error.what}.", hint="Push it again."
            ) from None
        image = OciImage.read(manifest.digest, self._cache.blobs)
        check(image, str(reference), platform or image.platform)
        return self._record(
            image, _key(digest, image.platform), {"digest": digest, "platform": image.platform}
        )

    def _record(self, image: OciImage, known: Key, inputs: Mapping[str, str]) -> Record:
        document = json.dumps(BaseScan.of(self._cache, image).found(), sort_keys=True).encode()
        artifact = self._cache.blobs.put(document)
        record = Record(
            known, KIND, artifact, (artifact, image.manifest.digest, image.identity), inputs
        )
        self._cache.records.add(record)
        return record


def _key(digest: Digest, platform: str) -> Key:
    return key(KIND, _FORMAT, {"digest": digest, "platform": platform})


def _read(document: bytes) -> dict[str, Any]:
    found = json.loads(document)
    return {
        **found,
        "interpreter": Interpreter(**found["interpreter"]) if found["interpreter"] else None,
    }


def _platforms(manifest: Manifest) -> dict[str, Digest]:
    """Return the manifests of an index by platform; empty if the manifest is not an index."""
    found: dict[str, Digest] = {}
    for each, descriptor in (
        zip(manifest.document["manifests"], manifest.manifests, strict=True)
        if manifest.is_index
        else ()
    ):
        said = each.get("platform") or {}
        if (
            not isinstance(said, dict)
            or not (name := f"{said.get('os')}/{said.get('architecture')}").isprintable()
        ):
            raise RegistryCorrupt(
                f"{manifest.digest} is not an image index", why="It contains an invalid platform."
            )
        found.setdefault(name, descriptor.digest)
    return found


def _chosen(manifest: Manifest, reference: ImageReference, platform: str) -> Digest:
    platforms = _platforms(manifest)
    if platform in platforms:
        return platforms[platform]
    if not platform and len(platforms) == 1:
        return next(iter(platforms.values()))
    raise ImageBuildError(
        f"The base {reference} is not available for {platform or 'a single platform'}",
        why=f"It is available for {', '.join(sorted(platforms))}.",
        hint="Choose another base, or another platform with platform=...",
    )


def _absent(reference: ImageReference) -> ImageBuildError:
    return ImageBuildError(
        f"Cannot find the image {reference}",
        why=f"{reference.name} does not contain it.",
        hint="Push it first, or correct its name.",
    )


class BaseSource(Protocol):
    """Source of the base that an image is built on."""

    @property
    def identity(self) -> Digest:
        """The digest that identifies the base."""

    def load(self) -> Base:
        """Return the base."""


@dataclass(frozen=True)
class RegistryBase:
    """A pinned base in a registry."""

    pinned: PinnedBase
    platform: str
    bases: Bases

    @property
    def identity(self) -> Digest:
        """The pinned digest."""
        return self.pinned.digest

    def load(self) -> Base:
        """Return the base, and fetch its missing parts."""
        return self.bases.get(self.pinned, self.platform)


@dataclass(frozen=True)
class LocalBase:
    """An image built on this machine, as the base of another one."""

    image: OciImage
    bases: Bases
    fetch: Fetch

    @property
    def identity(self) -> Digest:
        """The config's digest."""
        return self.image.identity

    def load(self) -> Base:
        """Return the base, and scan the image if necessary."""
        return self.bases.of_image(self.image, self.fetch)
