"""Kind, key and label of a bundle's record, shared by preparation and deployments.

It imports almost nothing.
"""

from __future__ import annotations

from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record

KIND = "bundle"
FORMAT = 1


def bundle_key(tree: Digest) -> Key:
    """Compute the key of the bundle of a tree, without building it."""
    return key(KIND, FORMAT, bundle_inputs(tree))


def bundle_inputs(tree: Digest | None) -> dict[str, Value]:
    """Return the inputs of the key."""
    return {"tree": tree}


def tree_of(record: Record) -> Digest:
    """Return the tree of a bundle's record."""
    return Digest(record.inputs["tree"])


def blobs_of(record: Record) -> list[Digest]:
    """Return the blobs of a bundle's record: its references without the tree."""
    return [each for each in record.refs if each != tree_of(record)]


def bundle_label(tree_label: str) -> str:
    """Return the label of the bundle of a tree that was resolved under `tree_label`."""
    return KIND + tree_label.removeprefix("tree")
