"""Descriptors: what names a blob or a manifest in OCI (image-spec 1.1, descriptor.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.errors import RegistryCorrupt, StoreError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"  # A config that says nothing: the two bytes `{}` (manifest.md).
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES = frozenset({INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST, *INDEXES})


@dataclass(frozen=True)
class Descriptor:
    """A blob's or a manifest's media type, digest and size in bytes; `artifact_type` and `annotations` say more of it."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The descriptor as JSON values."""
        more: dict[str, Any] = {"artifactType": self.artifact_type, "annotations": dict(self.annotations)}
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
            **{name: value for name, value in more.items() if value},
        }

    @classmethod
    def parse(cls, value: Any) -> "Descriptor":
        """The descriptor of JSON values. Raises `RegistryCorrupt` for what is none, and for other algorithms than sha256."""
        try:
            digest, size = Digest.parse(_text(value["digest"])), value["size"]
            if type(size) is not int or size < 0:
                raise ValueError(f"its size is {size!r:.100}")
            annotations = {_text(name): _text(text) for name, text in (value.get("annotations") or {}).items()}
            return cls(_text(value["mediaType"]), digest, size, _text(value.get("artifactType", "")), annotations)
        except (KeyError, TypeError, ValueError, AttributeError, StoreError) as error:
            why = error.what if isinstance(error, StoreError) else repr(error)
            raise RegistryCorrupt("A descriptor is malformed", why=f"{why}.") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.100} is no text")
    return value
