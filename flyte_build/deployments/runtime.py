"""What a deployment's tasks run in, by digest: the interpreter at hand, an image that exists, or one that was built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.errors import DeploymentError, ReferenceInvalid, StoreError
from flyte_build.images.pins import Wheel

from .document import canonical

Open = Callable[[RepositoryName], Repository]
HOST = {"kind": "host"}


def by_reference(uri: str, open_repository: Open | None) -> dict[str, Any]:
    """The image of that reference: its name, and the digest that the reference or its registry says.

    The digest is None if it is not said and nothing may be asked. Raises `DeploymentError` if it cannot be had.
    """
    name, at, digest = uri.partition("@")
    name, tag = _split(name)
    if at:
        try:
            return {"kind": "reference", "uri": name, "digest": Digest.parse(digest)}
        except StoreError as error:
            raise DeploymentError(f"The image {uri!r:.200} names no digest", why=error.why) from None
    try:
        place = RepositoryName.parse(name)
    except ReferenceInvalid as error:
        raise DeploymentError(
            f"The image {uri!r:.200} cannot be looked up",
            why=f"{error.why} Its digest is needed, since a tag may name another image tomorrow.",
            hint="Write its registry in front (HOST/NAME:TAG), or pin it: NAME@sha256:...",
        ) from None
    if open_repository is None:
        return {"kind": "reference", "uri": name, "digest": None}
    manifest = open_repository(place).manifest(tag)
    if manifest is None:
        raise DeploymentError(f"There is no image {name}:{tag}", why=f"{place} does not have it.", hint="Push it first, or mend its name.")
    return {"kind": "reference", "uri": name, "digest": manifest.digest}


def of_image(images: Mapping[str, Digest], python: str, packages: Mapping[str, Sequence[Wheel]]) -> dict[str, Any]:
    """An image that was built: the digest of its config for each platform, and its packages, of which an environment can be made.

    Where a wheel was seen is no part of it.
    """
    digests = list(images.values())
    return {
        "kind": "image",
        "digest": digests[0] if len(digests) == 1 else Digest.of(canonical(images)),
        "platforms": dict(images),
        "python": python,
        "packages": {
            platform: [[wheel.name, wheel.version, wheel.filename, wheel.digest] for wheel in wheels]
            for platform, wheels in packages.items()
        },
    }


def wheels_of(runtime: Mapping[str, Any], platform: str, seen: Mapping[str, str]) -> list[Wheel] | None:
    """The wheels of an image that was built, for a platform, and where they were `seen`, by digest; None if there are none for it."""
    found = runtime["packages"].get(platform)
    if found is None:
        return None
    return [
        Wheel(name=name, version=version, url=seen.get(digest, file), digest=Digest.parse(digest), size=0)
        for name, version, file, digest in found
    ]


def _split(name: str) -> tuple[str, str]:
    """A reference's name and its tag; `latest` if it has none."""
    folder, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{folder}{slash}{last}", tag or "latest"
