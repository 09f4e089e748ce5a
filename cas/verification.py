"""Checking everything that is stored, and repairing what can be: a bad blob is made again when it is needed next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .cache import Cache


@dataclass(frozen=True)
class Bad:
    """Something that was bad: its digest, what was wrong, and whether nothing bad is left of it."""

    digest: str
    what: str
    repaired: bool


def verify_blobs(cache: Cache, progress: Callable[[int, int], None]) -> tuple[int, list[Bad]]:
    """Read every blob; a bad one goes to quarantine, and records that need it are forgotten. Gives how many were read."""
    bad = []
    names = list(cache.blobs.names())
    for done, (digest, _) in enumerate(names):
        progress(done, len(names))
        if not cache.blobs.verify(digest):
            for record in cache.records.needing(digest):
                cache.records.remove(record.key)
            bad.append(Bad(digest, "its bytes had another digest; it is in quarantine, and is made again when it is needed", True))
    for record in cache.records.incomplete(cache.blobs.has):
        cache.records.remove(record.key)
        bad.append(Bad(record.artifact, f"a {record.kind} whose blobs are gone was recorded; it is made again when it is needed", True))
    return len(names), bad
