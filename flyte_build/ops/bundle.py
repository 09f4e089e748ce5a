"""Contents of a file's bundle, and the paths that are excluded from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyte_build.cas.digest import Digest
from flyte_build.text.wording import printable

from .prepare import FilePlan

if TYPE_CHECKING:
    from flyte_build.bundler.tree import Entry


def list_bundle(plan: FilePlan) -> dict[str, Any]:
    """Build the bundle, and return its files, packs and excluded paths as JSON values.

    The caller must hold the cache's shared lock (`Cache.preparing`).
    """
    from flyte_build.bundler import bundle, packs

    plan.discover()
    outcomes = plan.resolve()
    tree, record = plan.tree.tree(), outcomes[plan.bundle].record
    assert record is not None
    blobs, shown = plan.session.cache.blobs, plan.discovery.workspace.shown
    layers = bundle.read(record.artifact, blobs).packs
    parts = packs.cut(tree.sizes())
    # Another machine may have cut the packs differently.
    counts = list(map(len, parts)) if len(parts) == len(layers) else [None] * len(layers)
    return {
        "digest": tree.digest,
        "files": [
            {
                "path": _text(entry.path),
                "size": entry.size,
                "digest": _content(entry),
                "executable": entry.kind == "x",
                **(
                    {"from": printable(source)}
                    if (source := shown(entry.name)) != entry.name
                    else {}
                ),
            }
            for entry in tree.entries
        ],
        "packs": [
            {"digest": layer.digest, "size": layer.size, "files": count}
            for layer, count in zip(layers, counts, strict=True)
        ],
        "excluded": [
            {"path": path, "rule": rule}
            for scan in plan.tree.scans
            for path, rule in scan.excluded()
            if not plan.tree.holds(path)
        ],
    }


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _content(entry: Entry) -> str:
    return Digest.of(entry.content) if entry.kind == "l" else f"sha256:{entry.content.decode()}"
