"""What a deployment's tasks run in, by digest: the interpreter at hand, an image that exists, or
one that was built.
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
    """The image of that reference: its name, and the digest that it says itself, or that it is
    `pinned` to.

    The digest is None if it is not said and nothing may be asked. Raises `ReferenceInvalid`, and
    what `pinned` raises.
    """
    found = ImageReference.parse(uri)
    digest = found.digest or (pinned(uri) if pinned else None)
    return {"kind": "reference", "uri": found.name.text, "digest": digest}


def of_image(
    images: Mapping[str, Digest], python: str, packages: Mapping[str, Sequence[Wheel]]
) -> dict[str, Any]:
    """An image that was built: the digest of its config for each platform, and its packages, of
    which an environment can be made.

    Where a wheel was seen is no part of it.
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
    """The wheels of an image that was built, for a platform, and where they were `seen`, by digest;
    None if there are none for it.
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
