"""The cache's index, in which other tools find the last bundle of each project by name."""

from __future__ import annotations

from flyte_build.cas.cache import Cache

from .identity import KIND, tree_of


def publish_index(cache: Cache) -> None:
    """List the bundles in the cache in its `index.json` (image-spec, image-layout.md)."""
    named = []
    for label, record in cache.records.labelled(KIND):
        name = label.rsplit("/", 1)[-1].replace(" ", "-") or KIND
        named.append((f"{name}-{tree_of(record).short}", record.artifact))
    cache.write_index(named)
