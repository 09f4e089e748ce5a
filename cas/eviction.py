"""Choice of the records to evict, so that the rest fits a target size. It touches no store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from .digest import Digest
from .records import Use


def evict(
    uses: Iterable[Use], sizes: Mapping[Digest, int], pinned: Set[Digest], target: int
) -> tuple[list[Use], int]:
    """Return the records to remove so that the rest takes at most `target` bytes, and its size.

    The least recently used artifacts go first; an artifact was last used when the last record that
    refers to it was. A record stays if later records need everything that it refers to, since
    removing it would free nothing. What is `pinned` always stays, so the rest can be larger than
    `target`.
    """
    needing: dict[Digest, list[Use]] = {}
    for use in uses:
        for ref in use[2]:
            needing.setdefault(ref, []).append(use)
    left = {ref: len(needed) for ref, needed in needing.items()}
    total = sum(sizes.get(ref, 0) for ref in needing.keys() | pinned)
    gone: dict[str, Use] = {}
    for ref in sorted(needing, key=lambda ref: (max(used for _, used, _ in needing[ref]), ref)):
        if total <= target:
            break
        if not sizes.get(ref) or ref in pinned:
            continue
        for key, used, refs in needing[ref]:
            if key in gone:
                continue
            gone[key] = (key, used, refs)
            for other in refs:
                left[other] -= 1
                if not left[other] and other not in pinned:
                    total -= sizes.get(other, 0)
    return list(gone.values()), total
