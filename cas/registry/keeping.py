"""Tags that keep manifests: registries collect what has no tag, some of them even where a tagged index names it."""

from __future__ import annotations

from flyte_build.cas.digest import Digest

PREFIX = "keep."


def keep_tag(manifest: Digest) -> str:
    """The tag that keeps a manifest, whatever else names it."""
    return PREFIX + manifest.hex
