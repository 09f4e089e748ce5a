"""Tags that have a meaning in a repository: each kind of them begins with a word of its own.

record.<hex>   the record of a key
keep.<hex>     a manifest that is in use: registries collect what has no tag, some of them even
               where a tagged index names it
pin.<hex>      what is deployed under that pin
"""

from __future__ import annotations

from flyte_build.cas.digest import Digest, Key

RECORD, KEEP, PIN = "record.", "keep.", "pin."


def record_tag(key: Key) -> str:
    """The tag of a key's record."""
    return RECORD + key.hex


def keep_tag(manifest: Digest) -> str:
    """The tag that keeps a manifest, whatever else names it."""
    return KEEP + manifest.hex


def pin_tag(pin: Digest) -> str:
    """The tag of what is deployed under a pin."""
    return PIN + pin.hex
