"""Which wheels go into which layer. Pure, and stable: one package more touches one layer, with few
exceptions.

While there is room, each wheel has a layer of its own, which all images with that wheel share. Else
the large ones have, and the others share layers, each in the one that a hash of its name says: so
that adding one does not move the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from flyte_build.images.lock.pins import Wheel

LAYERS = 80
"""How many layers an image has at most, so that a bundle's and the runtime's fit below Docker's
limit of 125.
"""
_LEAST = 8  # Layers that are taken even where a base leaves no room for them.


def group(wheels: Sequence[Wheel], room: int) -> tuple[tuple[Wheel, ...], ...]:
    """The wheels of each layer, at most `room` layers (at least 8, where that is less); the largest
    come first, since what

    comes after a layer that has changed is unpacked again by an engine.
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
    # By power of two: a new version of about the same size keeps its place.
    return -wheel.size.bit_length(), wheel.name


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
