"""Images as values: a manifest with its config (OCI image-spec 1.1, config.md, manifest.md). A
change gives a new one.

The config's digest is an image's identity for one platform: it holds the digests of all
uncompressed layers. The manifest's digest names one copy, in which each layer is compressed in some
way.
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
KEY = "dev.flyte.key"  # The annotation of a layer that says what went into it.
CREATED = "1970-01-01T00:00:00Z"
# What Docker gives a container whose image says nothing.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FROM_DOCKER = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": MEDIA_TYPES["gzip"],
    "application/vnd.docker.image.rootfs.diff.tar": MEDIA_TYPES["none"],
}


@dataclass(frozen=True)
class Added:
    """A layer to put on top of an image: its blob's descriptor, its diff_id, and what it holds, for
    people.
    """

    blob: Descriptor
    diff_id: Digest
    what: str

    @classmethod
    def of(cls, layer: Layer, compression: Compression, what: str, key: Key | None = None) -> Added:
        """A layer of ours; `key` is that of what went into it, by which it is found in the
        manifests of others.
        """
        annotations = {KEY: key} if key else {}
        return cls(
            Descriptor(MEDIA_TYPES[compression], layer.digest, layer.size, annotations=annotations),
            layer.diff_id,
            what,
        )


@dataclass(frozen=True)
class OciImage:
    """An image for one platform. What is asked of it raises `RegistryCorrupt` if it
    is malformed.
    """

    manifest: Manifest
    config: bytes

    @classmethod
    def read(cls, manifest: Digest, blobs: BlobReader) -> OciImage:
        """The image of that manifest. Raises `BlobMissing`, `BlobCorrupt`, `RegistryCorrupt`."""
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
            raise _malformed(self, "Its config is no JSON object.") from None
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
                f"It has {len(self.manifest.layers)} layers, and its config speaks of"
                f" {len(found)}.",
            )
        return found

    @property
    def platform(self) -> str:
        """What it runs on: `linux/amd64`."""
        found = f"{self.document.get('os', '')}/{self.document.get('architecture', '')}"
        if not found.isprintable():
            raise _malformed(self, "Its platform is none.")
        return found

    @property
    def settings(self) -> Mapping[str, Any]:
        """How its containers run: `Env`, `User`, `WorkingDir`, `Entrypoint`, ..."""
        found = self.document.get("config")
        return found if isinstance(found, dict) else {}

    @property
    def env(self) -> dict[str, str]:
        """The environment variables of its containers."""
        said = self.settings.get("Env") or []
        if not isinstance(said, list):
            raise _malformed(self, "Its variables are no list.")
        pairs = (str(text).partition("=") for text in said)
        return {name: value for name, _, value in pairs}

    @property
    def history(self) -> list[Mapping[str, Any]]:
        """What made it, step by step, also without a layer; made up where a config does not say of
        each layer.
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
        """What each layer holds, for people, in order."""
        return [
            str(each.get("created_by", "")) for each in self.history if not each.get("empty_layer")
        ]

    def layers_by_key(self) -> dict[Key, Added]:
        """Its layers that say what went into them."""
        layers = zip(self.manifest.layers, self.diff_ids, self.contents, strict=True)
        return {
            Key(key): Added(*layer) for layer in layers if (key := layer[0].annotations.get(KEY))
        }

    def change(
        self, added: Sequence[Added], *, env: Mapping[str, str] = {}, workdir: str = ""
    ) -> OciImage:
        """The image with layers on top, variables set, and another working directory if one is
        named. Created in 1970, for good.
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
        """Put the manifest and the config into the store; the manifest's digest is given."""
        batch.add(self.config)
        return batch.add(self.manifest.data)


def _as_oci(layer: Descriptor) -> Descriptor:
    return replace(layer, media_type=_FROM_DOCKER.get(layer.media_type, layer.media_type))


def check(image: OciImage, name: str, platform: str) -> OciImage:
    """The image itself, if it is one for that platform. Raises `ImageBuildError`."""
    if image.manifest.media_type not in (MANIFEST, DOCKER_MANIFEST) or image.platform != platform:
        raise ImageBuildError(
            f"{name} is no image for {platform}",
            why=f"It is one for {image.platform}.",
            hint="Name another base, or the platform of this one: platform=...",
        )
    assert image.diff_ids is not None  # It is well-formed.
    return image


def _malformed(image: OciImage, why: str) -> RegistryCorrupt:
    return RegistryCorrupt(f"{image.manifest.digest} is no image", why=why)
