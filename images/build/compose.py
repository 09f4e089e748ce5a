"""Composing: an image, the runtime and a bundle become one image by a new config and a new
manifest. No layer is read or moved.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyte_build.errors import ImageBuildError
from flyte_build.images.oci_image import Added, OciImage

DEEPEST = 125
"""How many layers Docker takes (moby, layer/layer_store.go: "max depth exceeded")."""


def compose(image: OciImage, parts: Sequence[OciImage], runtime: Sequence[Added] = ()) -> OciImage:
    """The image with the layers of the runtime and of some others (a bundle is an image) on top;
    all else is the image's own.

    Raises `ImageBuildError` where Docker could not take so many layers.
    """
    added = [*runtime, *(layer for part in parts for layer in _layers(part))]
    total = len(image.diff_ids) + len(added)
    if total > DEEPEST:
        raise ImageBuildError(
            f"An image of {total} layers is too deep",
            why=f"Docker takes {DEEPEST}.",
            hint="Name a base with fewer layers.",
        )
    return image.change(added)


def _layers(part: OciImage) -> list[Added]:
    return [
        Added(blob, diff_id, what)
        for blob, diff_id, what in zip(
            part.manifest.layers, part.diff_ids, part.contents, strict=True
        )
    ]
