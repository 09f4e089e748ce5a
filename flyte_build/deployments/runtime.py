"""Runtimes of deployments: the host's interpreter, an existing image, or an image that was built.

Images are identified by digests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.images.lock.pins import Wheel
from flyte_build.images.reference import ImageReference

from .document import canonical

HOST = {"kind": "host"}


def by_reference(uri: str, pinned: Callable[[str], Digest] | None) -> dict[str, Any]:
    """Return the runtime of an existing image, given its reference.

    Its digest is that in the reference, or else the result of `pinned` (None if that is None).
    Raises `ReferenceInvalid`, and any error of `pinned`.
    """
    found = ImageReference.parse(uri)
    digest = found.digest or (pinned(uri) if pinned else None)
    return {"kind": "reference", "uri": found.name.text, "digest": digest}


def of_image(
    images: Mapping[str, Digest], python: str, packages: Mapping[str, Sequence[Wheel]]
) -> dict[str, Any]:
    """Return the runtime of an image that was built.

    It has the digest of the config for each platform, and the packages, from which a local
    environment can be created. URLs of wheels are not part of it.
    """
    digests = list(images.values())
    return {
        "kind": "image",
        "digest": digests[0] if len(digests) == 1 else Digest.of(canonical(images)),
        "platforms": dict(images),
        "python": python,
        "packages": {
            platform: [
                [wheel.name, wheel.version, wheel.filename, wheel.digest] for wheel in wheels
            ]
            for platform, wheels in packages.items()
        },
    }


def wheels_of(
    runtime: Mapping[str, Any], platform: str, seen: Mapping[str, str]
) -> list[Wheel] | None:
    """Return the wheels of a built image for a platform, or None if it has none for that platform.

    `seen` maps digests of wheels to their URLs.
    """
    found = runtime["packages"].get(platform)
    if found is None:
        return None
    return [
        Wheel(
            name=name,
            version=version,
            url=seen.get(digest, file),
            digest=Digest.parse(digest),
            size=0,
        )
        for name, version, file, digest in found
    ]
