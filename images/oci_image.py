"""Immutable images: a manifest with its config (OCI image-spec 1.1, config.md, manifest.md).

The digest of the config is an image's identity for one platform: it contains the digests of all
uncompressed layers. The digest of the manifest depends on the compression of the layers, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from flyte_build.cas.blobs import Batch, BlobReader
from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.layer import MEDIA_TYPES, Compression, Layer
from flyte_build.cas.registry.descriptor import DOCKER_MANIFEST, MANIFEST, Descriptor
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.errors import ImageBuildError, RegistryCorrupt, StoreError

CONFIG = "application/vnd.oci.image.config.v1+json"
KEY = "dev.flyte.key"  # Annotation of a layer with the key of its inputs.
CREATED = "1970-01-01T00:00:00Z"
# Docker's default for images without a PATH.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FROM_DOCKER = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": MEDIA_TYPES["gzip"],
    "application/vnd.docker.image.rootfs.diff.tar": MEDIA_TYPES["none"],
}


@dataclass(frozen=True)
class Added:
    """A layer to put on top of an image: descriptor, diff_id, and human-readable contents."""

    blob: Descriptor
    diff_id: Digest
    what: str

    @classmethod
    def of(cls, layer: Layer, compression: Compression, what: str, key: Key | None = None) -> Added:
        """Return a layer that was written here.

        `key` is that of its inputs, by which it is found in remote manifests.
        """
        annotations = {KEY: key} if key else {}
        return cls(
            Descriptor(MEDIA_TYPES[compression], layer.digest, layer.size, annotations=annotations),
            layer.diff_id,
            what,
        )


@dataclass(frozen=True)
class OciImage:
    """An image for one platform.

    Its properties raise `RegistryCorrupt` if the manifest or the config is malformed.
    """

    manifest: Manifest
    config: bytes

    @classmethod
    def read(cls, manifest: Digest, blobs: BlobReader) -> OciImage:
        """Return the image of a manifest in the store.

        Raises `BlobMissing`, `BlobCorrupt` and `RegistryCorrupt`.
        """
        found = Manifest.parse(blobs.read(manifest))
        return cls(found, blobs.read(found.config.digest))

    @property
    def identity(self) -> Digest:
        """The digest of the config."""
        return self.manifest.config.digest

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The config as a JSON value."""
        try:
            document = json.loads(self.config)
            if not isinstance(document, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise _malformed(self, "Its config is not a JSON object.") from None
        return document

    @cached_property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The digests of the uncompressed layers, in order: one for each layer of the manifest."""
        try:
            found = tuple(Digest.parse(text) for text in self.document["rootfs"]["diff_ids"])
        except (KeyError, TypeError, AttributeError, StoreError):
            raise _malformed(self, "Its config has no diff_ids.") from None
        if len(found) != len(self.manifest.layers):
            raise _malformed(
                self,
                f"It has {len(self.manifest.layers)} layers, but its config lists {len(found)}.",
            )
        return found

    @property
    def platform(self) -> str:
        """The platform that it runs on, like `linux/amd64`."""
        found = f"{self.document.get('os', '')}/{self.document.get('architecture', '')}"
        if not found.isprintable():
            raise _malformed(self, "Its platform is invalid.")
        return found

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of its containers: `Env`, `User`, `WorkingDir`, `Entrypoint`, ..."""
        found = self.document.get("config")
        return found if isinstance(found, dict) else {}

    @property
    def env(self) -> dict[str, str]:
        """The environment variables of its containers."""
        said = self.settings.get("Env") or []
        if not isinstance(said, list):
            raise _malformed(self, "Its variables are not a list.")
        pairs = (str(text).partition("=") for text in said)
        return {name: value for name, _, value in pairs}

    @property
    def history(self) -> list[Mapping[str, Any]]:
        """The steps that created the image, including those without a layer.

        If the config does not describe each layer, placeholders are returned.
        """
        found = self.document.get("history")
        entries: list[Mapping[str, Any]] = (
            [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        )
        layers = len(self.diff_ids)
        if sum(not each.get("empty_layer") for each in entries) == layers:
            return entries
        return [{"created": CREATED, "created_by": "the base"}] * layers

    @property
    def contents(self) -> list[str]:
        """Human-readable contents of each layer, in order."""
        return [
            str(each.get("created_by", "")) for each in self.history if not each.get("empty_layer")
        ]

    def layers_by_key(self) -> dict[Key, Added]:
        """Return the layers that have a key of their inputs, by that key."""
        layers = zip(self.manifest.layers, self.diff_ids, self.contents, strict=True)
        return {
            Key(key): Added(*layer) for layer in layers if (key := layer[0].annotations.get(KEY))
        }

    def change(
        self, added: Sequence[Added], *, env: Mapping[str, str] = {}, workdir: str = ""
    ) -> OciImage:
        """Return the image with layers on top, and with other variables and working directory.

        Its creation time is fixed, in 1970.
        """
        settings = {**self.settings}
        if env:
            settings["Env"] = [f"{name}={value}" for name, value in {**self.env, **env}.items()]
        if workdir:
            settings["WorkingDir"] = workdir
        rootfs = {"type": "layers", "diff_ids": [*self.diff_ids, *(each.diff_id for each in added)]}
        made = [{"created": CREATED, "created_by": each.what} for each in added]
        kept = {
            name: self.document[name]
            for name in ("architecture", "os", "variant", "os.version")
            if name in self.document
        }
        document = {
            **kept,
            "created": CREATED,
            "config": settings,
            "rootfs": rootfs,
            "history": [*self.history, *made],
        }
        config = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        layers = [_as_oci(layer) for layer in self.manifest.layers]
        descriptor = Descriptor(CONFIG, Digest.of(config), len(config))
        return OciImage(
            Manifest.of_layers(descriptor, [*layers, *(each.blob for each in added)]), config
        )

    def write(self, batch: Batch) -> Digest:
        """Put the manifest and the config into the store, and return the manifest's digest."""
        batch.add(self.config)
        return batch.add(self.manifest.data)


def _as_oci(layer: Descriptor) -> Descriptor:
    return replace(layer, media_type=_FROM_DOCKER.get(layer.media_type, layer.media_type))


def check(image: OciImage, name: str, platform: str) -> OciImage:
    """Return the image if it is one for that platform, else raise `ImageBuildError`."""
    if image.manifest.media_type not in (MANIFEST, DOCKER_MANIFEST) or image.platform != platform:
        raise ImageBuildError(
            f"{name} is not an image for {platform}",
            why=f"It is an image for {image.platform}.",
            hint="Choose another base, or the platform of this one with platform=...",
        )
    assert image.diff_ids is not None  # Raises an error if the image is malformed.
    return image


def _malformed(image: OciImage, why: str) -> RegistryCorrupt:
    return RegistryCorrupt(f"{image.manifest.digest} is not an image", why=why)
