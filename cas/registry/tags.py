"""Tags with a meaning in a repository; each kind has a prefix of its own.

record.<hex>   the record of a key
keep.<hex>     a manifest in use: registries collect untagged manifests, some of them even
               if a tagged index refers to them
pin.<hex>      the deployment with that pin
"""

from __future__ import annotations

from flyte_build.cas.digest import Digest, Key

RECORD, KEEP, PIN = "record.", "keep.", "pin."


def record_tag(key: Key) -> str:
    """Return the tag of the record of a key."""
    return RECORD + key.hex


def keep_tag(manifest: Digest) -> str:
    """Return the tag that protects a manifest from collection, whatever else refers to it."""
    return KEEP + manifest.hex


def pin_tag(pin: Digest) -> str:
    """Return the tag of the deployment with that pin."""
    return PIN + pin.hex
