"""Manifests and indexes, which a registry stores under digests and tags.

(OCI image-spec 1.1, manifest.md, image-index.md)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.errors import RegistryCorrupt

from .descriptor import EMPTY, INDEX, INDEXES, MANIFEST, MANIFESTS, Descriptor

# Bytes that every registry must accept (distribution-spec 1.1, "Pushing Manifests").
LIMIT = 4 << 20
EMPTY_CONFIG = b"{}"


@dataclass(frozen=True)
class Manifest:
    """A manifest or index: its exact bytes and media type.

    All properties raise `RegistryCorrupt` if it is malformed.
    """

    data: bytes
    media_type: str

    @classmethod
    def of_layers(
        cls,
        config: Descriptor,
        layers: Iterable[Descriptor],
        *,
        artifact_type: str = "",
        annotations: Mapping[str, str] = {},
    ) -> Manifest:
        """Create the manifest of a config and layers; its bytes depend on the arguments alone."""
        return cls._of(
            MANIFEST,
            artifact_type,
            annotations,
            {"config": config.document(), "layers": [layer.document() for layer in layers]},
        )

    @classmethod
    def of_manifests(
        cls,
        manifests: Iterable[Descriptor],
        *,
        artifact_type: str = "",
        annotations: Mapping[str, str] = {},
    ) -> Manifest:
        """Create an index of manifests."""
        return cls._of(
            INDEX,
            artifact_type,
            annotations,
            {"manifests": [each.document() for each in manifests]},
        )

    @classmethod
    def of_platforms(cls, manifests: Iterable[tuple[Descriptor, Mapping[str, str]]]) -> Manifest:
        """Create the index of an image's manifests and their platforms (`os`, `architecture`)."""
        return cls._of(
            INDEX,
            "",
            {},
            {
                "manifests": [
                    {**each.document(), "platform": dict(platform)} for each, platform in manifests
                ]
            },
        )

    @classmethod
    def _of(
        cls,
        media_type: str,
        artifact_type: str,
        annotations: Mapping[str, str],
        parts: Mapping[str, Any],
    ) -> Manifest:
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type, **parts}
        if artifact_type:
            document["artifactType"] = artifact_type
        if annotations:
            document["annotations"] = dict(annotations)
        return cls(json.dumps(document, sort_keys=True, separators=(",", ":")).encode(), media_type)

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Parse a manifest or index, and determine its media type. Raises `RegistryCorrupt`."""
        if len(data) > LIMIT:
            raise RegistryCorrupt(
                "A manifest is too large", why=f"It has {len(data):,} bytes; {LIMIT:,} are allowed."
            )
        manifest = cls(data, "")
        media_type = manifest.document.get("mediaType")
        # CVE-2021-41190.
        if "manifests" in manifest.document and manifest.document.keys() & {"config", "layers"}:
            raise RegistryCorrupt(
                "A manifest is ambiguous", why="It could also be read as an index."
            )
        if media_type is None:  # It is optional in OCI.
            media_type = INDEX if "manifests" in manifest.document else MANIFEST
        if not isinstance(media_type, str) or media_type not in MANIFESTS:
            raise RegistryCorrupt(
                "A manifest is of an unknown type", why=f"Its media type is {media_type!r:.200}."
            )
        return cls(data, media_type)

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The JSON object inside. Duplicate names are refused, since they would be ambiguous."""
        try:
            document = json.loads(self.data.decode("utf-8"), object_pairs_hook=_unique)
        except _Twice:
            raise RegistryCorrupt(
                "A manifest is malformed", why="An object in it has a duplicate name."
            ) from None
        except (ValueError, RecursionError):
            raise RegistryCorrupt("A manifest is malformed", why="It is not valid JSON.") from None
        if not isinstance(document, dict):
            raise RegistryCorrupt("A manifest is malformed", why="It is not a JSON object.")
        return document

    @cached_property
    def digest(self) -> Digest:
        """Digest of the bytes."""
        return Digest.of(self.data)

    @property
    def descriptor(self) -> Descriptor:
        """Descriptor for an index, without artifact type.

        skopeo (1.9) would drop the type, and so copy a different index.
        """
        return Descriptor(self.media_type, self.digest, len(self.data))

    @property
    def is_index(self) -> bool:
        """Whether it refers to manifests instead of blobs."""
        return self.media_type in INDEXES

    @property
    def artifact_type(self) -> str:
        """Type of the artifact, or ""."""
        found = self.document.get("artifactType") or ""
        if not isinstance(found, str):
            raise RegistryCorrupt(
                "A manifest is malformed", why="Its artifactType is not a string."
            )
        return found

    @property
    def annotations(self) -> Mapping[str, str]:
        """Annotations by name."""
        found = self.document.get("annotations") or {}
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise RegistryCorrupt(
                "A manifest is malformed", why="Its annotations are not an object of strings."
            )
        return found

    @cached_property
    def config(self) -> Descriptor:
        """Descriptor of the config."""
        return Descriptor.parse(self.document.get("config"))

    @cached_property
    def layers(self) -> tuple[Descriptor, ...]:
        """Descriptors of the layers, in order."""
        return self._descriptors("layers")

    @cached_property
    def manifests(self) -> tuple[Descriptor, ...]:
        """Descriptors of the manifests in an index, in order."""
        return self._descriptors("manifests")

    def blobs(self) -> tuple[Descriptor, ...]:
        """Return the distinct descriptors of all blobs that it refers to; none for an index."""
        if self.is_index:
            return ()
        return tuple({blob.digest: blob for blob in (self.config, *self.layers)}.values())

    def _descriptors(self, name: str) -> tuple[Descriptor, ...]:
        found = self.document.get(name)
        if not isinstance(found, list):
            raise RegistryCorrupt("A manifest is malformed", why=f"Its {name} are not a list.")
        return tuple(map(Descriptor.parse, found))


def empty_config() -> Descriptor:
    """Return the descriptor of the empty config."""
    return Descriptor(EMPTY, Digest.of(EMPTY_CONFIG), len(EMPTY_CONFIG))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice
    return found


class _Twice(ValueError):
    """Duplicate name in a JSON object."""
