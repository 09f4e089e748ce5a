"""Assignment of wheels to layers: pure, and stable, so that adding a package changes few layers.

While there is room, each wheel has a layer of its own, which all images with that wheel share.
Otherwise only large wheels have one; the others share layers, chosen by a hash of the package name,
so that adding one does not move the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from flyte_build.images.lock.pins import Wheel

LAYERS = 80
"""Maximum number of layers of an image.

It leaves room for those of a bundle and of the runtime below Docker's limit of 125.
"""
_LEAST = 8  # Layers that are used even if a base leaves no room for them.


def group(wheels: Sequence[Wheel], room: int) -> tuple[tuple[Wheel, ...], ...]:
    """Return the wheels of each layer, at most `room` layers (but at least 8 may be used).

    The largest come first: engines unpack all layers after a changed one again.
    """
    room = max(room, _LEAST)
    if len(wheels) <= room:
        return tuple((wheel,) for wheel in sorted(wheels, key=_rank))
    limit = 1
    while sum(wheel.size >= limit for wheel in wheels) > room // 2:
        limit *= 2
    alone = [wheel for wheel in wheels if wheel.size >= limit]
    shared: dict[int, list[Wheel]] = {}
    for wheel in wheels:
        if wheel.size < limit:
            shared.setdefault(_hash(wheel.name) % (room // 2), []).append(wheel)
    return (
        *((wheel,) for wheel in sorted(alone, key=_rank)),
        *(tuple(sorted(shared[at], key=lambda wheel: wheel.name)) for at in sorted(shared)),
    )


def _rank(wheel: Wheel) -> tuple[int, str]:
    # By power of two, so that a new version of about the same size keeps its position.
    return -wheel.size.bit_length(), wheel.name


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
