"""Image references, in docker's form: `[HOST/]NAME[:TAG][@DIGEST]`.

`oci:/DIRECTORY[:TAG][@DIGEST]` refers to an OCI image layout.
"""

from __future__ import annotations

from dataclasses import dataclass

from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.name import HUB, HUB_NAMES, RepositoryName, check_tag, is_host
from flyte_build.errors import ReferenceInvalid, StoreError


@dataclass(frozen=True)
class ImageReference:
    """An image in a repository, by its `digest`, or by a `tag` (default: "latest")."""

    name: RepositoryName
    tag: str
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Parse a reference; raises `ReferenceInvalid`."""
        place, at, pinned = text.partition("@")
        folder, slash, last = place.rpartition("/")
        last, colon, tag = last.partition(":")
        if colon:
            check_tag(tag, "The tag")
        try:
            digest = Digest.parse(pinned) if at else None
        except StoreError as error:
            raise ReferenceInvalid(
                f"The image {text!r:.200} has an invalid digest", why=error.why
            ) from None
        return cls(RepositoryName.parse(_full(f"{folder}{slash}{last}")), tag or "latest", digest)

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def _full(name: str) -> str:
    """Return a name with its host; names without one are Docker Hub's (docker's rule)."""
    if name.startswith("oci:") or "://" in name:
        return name
    first, slash, rest = name.partition("/")
    if not (slash and is_host(first)):
        rest = name
    elif first not in HUB_NAMES:
        return name
    return f"{HUB}/{rest if '/' in rest else 'library/' + rest}"
