"""Composition of an image, the runtime and a bundle into one image, without touching layers.

Only a new config and a new manifest are written.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyte_build.errors import ImageBuildError
from flyte_build.images.oci_image import Added, OciImage

DEEPEST = 125
"""Maximum number of layers in Docker (moby, layer/layer_store.go: "max depth exceeded")."""


def compose(image: OciImage, parts: Sequence[OciImage], runtime: Sequence[Added] = ()) -> OciImage:
    """Return an image with the layers of the runtime and of `parts` on top.

    A bundle is an image, too, and may be a part. Everything else stays as in the image. Raises
    `ImageBuildError` for more layers than Docker supports.
    """
    added = [*runtime, *(layer for part in parts for layer in _layers(part))]
    total = len(image.diff_ids) + len(added)
    if total > DEEPEST:
        raise ImageBuildError(
            f"An image of {total} layers is too deep",
            why=f"Docker supports at most {DEEPEST} layers.",
            hint="Choose a base with fewer layers.",
        )
    return image.change(added)


def _layers(part: OciImage) -> list[Added]:
    return [
        Added(blob, diff_id, what)
        for blob, diff_id, what in zip(
            part.manifest.layers, part.diff_ids, part.contents, strict=True
        )
    ]
