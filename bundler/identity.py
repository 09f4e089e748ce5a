"""What a bundle is recorded under: preparing, and fetching what was deployed, agree on it here, and
load nothing else for it.
"""

from __future__ import annotations

from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record

KIND = "bundle"
FORMAT = 1


def bundle_key(tree: Digest) -> Key:
    """The key of the bundle of a tree: one that was fetched need not be made."""
    return key(KIND, FORMAT, bundle_inputs(tree))


def bundle_inputs(tree: Digest | None) -> dict[str, Value]:
    """The inputs that the key is made of."""
    return {"tree": tree}


def tree_of(record: Record) -> Digest:
    """The tree of a bundle's record."""
    return Digest(record.inputs["tree"])


def blobs_of(record: Record) -> list[Digest]:
    """The blobs that a bundle's record needs: beside them it keeps the tree, which may be
    extracted.
    """
    return [each for each in record.refs if each != tree_of(record)]


def bundle_label(tree_label: str) -> str:
    """The label of the bundle of the tree that was resolved under a label."""
    return KIND + tree_label.removeprefix("tree")
