"""Descriptors, which identify a blob or a manifest in OCI (image-spec 1.1, descriptor.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.errors import RegistryCorrupt, StoreError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
# An empty config: the two bytes `{}` (manifest.md).
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES = frozenset({INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST, *INDEXES})


@dataclass(frozen=True)
class Descriptor:
    """Media type, digest and size in bytes of a blob or a manifest, with optional details."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the descriptor as JSON values."""
        more: dict[str, Any] = {
            "artifactType": self.artifact_type,
            "annotations": dict(self.annotations),
        }
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
            **{name: value for name, value in more.items() if value},
        }

    @classmethod
    def parse(cls, value: Any) -> Descriptor:
        """Parse a descriptor from JSON values.

        Raises `RegistryCorrupt` if it is malformed, or its digest is not a sha256.
        """
        if not isinstance(value, dict):
            raise _malformed("It is not a JSON object.")
        size, annotations = value.get("size"), value.get("annotations") or {}
        if type(size) is not int or size < 0:
            raise _malformed("Its size is not a number of bytes.")
        if not isinstance(annotations, dict) or not all(
            isinstance(text, str) for text in annotations.values()
        ):
            raise _malformed("Its annotations are not an object of strings.")
        try:
            digest = Digest.parse(_text(value, "digest"))
        except StoreError as error:
            raise _malformed(f"{error.what}.") from None
        kind = _text(value, "artifactType") if "artifactType" in value else ""
        return cls(_text(value, "mediaType"), digest, size, kind, annotations)


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise _malformed(f"Its {name} is not a string." if name in value else f"It has no {name}.")
    return found


def _malformed(why: str) -> RegistryCorrupt:
    return RegistryCorrupt("A descriptor is malformed", why=why)
