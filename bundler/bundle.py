"""Bundles: trees as OCI images, to be extracted, appended to an image, or mounted as a volume.

The manifest and the config are those of the OCI image-spec 1.1 (manifest.md, config.md). The first
layer contains the tree document at `opt/flyte/code.tree`; the others are packs, rooted at
`opt/flyte/code/`. The platform in the config is fixed: a bundle contains no machine code of its
own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flyte_build.cas import tar
from flyte_build.cas.blobs import Batch, BlobReader
from flyte_build.cas.digest import Digest
from flyte_build.cas.layer import MEDIA_TYPES, Layer, write_layer
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.errors import ExtractionRefused, RegistryCorrupt, StoreError

from .layer_stream import read_bytes
from .tree import Tree

TREE = b"opt/flyte/code.tree"
ANNOTATION = "dev.flyte.tree"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_DOCUMENT_LIMIT = 256 << 20
_CONFIG_LIMIT = 4 << 20


@dataclass(frozen=True)
class Bundle:
    """One copy of a tree: manifest, config, the layer with the tree document, and the packs."""

    manifest: Digest
    config: Digest
    tree: Digest
    document: Layer
    packs: tuple[Layer, ...]

    def blobs(self) -> tuple[Digest, ...]:
        """Return all blobs of this copy, the manifest first."""
        return (
            self.manifest,
            self.config,
            self.document.digest,
            *(pack.digest for pack in self.packs),
        )

    @property
    def refs(self) -> tuple[Digest, ...]:
        """References for its record: its blobs, and the tree, to keep its extraction."""
        return (*self.blobs(), self.tree)


def write(tree: Tree, packs: list[Layer], batch: Batch) -> Bundle:
    """Write the bundle of `tree`, whose packs are already stored, or in the batch."""
    document = write_layer(_document(tree), batch)
    layers = [document, *packs]
    config = _json(_config([layer.diff_id for layer in layers]))
    manifest = Manifest.of_layers(
        Descriptor(_CONFIG, Digest.of(config), len(config)),
        [Descriptor(MEDIA_TYPES["zstd"], layer.digest, layer.size) for layer in layers],
        annotations={ANNOTATION: tree.digest},
    )
    return Bundle(batch.add(manifest.data), batch.add(config), tree.digest, document, tuple(packs))


def read(manifest: Digest, blobs: BlobReader) -> Bundle:
    """Return the bundle with that manifest; only the manifest and the config are checked.

    Raises `BlobMissing`, `BlobCorrupt`, or `ExtractionRefused` if it is not a bundle.
    """
    try:
        outer = Manifest.parse(blobs.read(manifest))
        config, layers = outer.config, outer.layers
    except RegistryCorrupt as error:
        raise _none(manifest, f"{error.what}. {error.why}") from None
    if config.media_type != _CONFIG or config.size > _CONFIG_LIMIT:
        raise _none(manifest, "Its config has another media type, or is too large.")
    if other := [layer.media_type for layer in layers if layer.media_type != MEDIA_TYPES["zstd"]]:
        raise _none(manifest, f"A layer has the media type {other[0]!r:.100}.")
    diff_ids = _diff_ids(manifest, blobs.read(config.digest))
    if not layers or len(layers) != len(diff_ids):
        raise _none(manifest, f"It has {len(layers)} layers, but its config lists {len(diff_ids)}.")
    found = [
        Layer(layer.digest, layer.size, diff_id)
        for layer, diff_id in zip(layers, diff_ids, strict=True)
    ]
    try:
        tree = Digest.parse(outer.annotations.get(ANNOTATION, ""))
    except (RegistryCorrupt, StoreError):
        raise _none(manifest, f"Its annotation {ANNOTATION} is not a digest.") from None
    return Bundle(manifest, config.digest, tree, found[0], tuple(found[1:]))


def _diff_ids(manifest: Digest, config: bytes) -> list[Digest]:
    """Return the diff_ids of all layers.

    Raises `ExtractionRefused` if the config contains anything else.
    """
    try:
        document = json.loads(config)
        diff_ids = [Digest.parse(text) for text in document["rootfs"]["diff_ids"]]
    except (ValueError, KeyError, TypeError, RecursionError, StoreError):
        raise _none(manifest, "Its config has no diff_ids.") from None
    if document != _config(diff_ids):  # An image built from it would inherit anything else.
        raise _none(manifest, "Its config is not that of a bundle.")
    return diff_ids


def _config(diff_ids: Sequence[Digest]) -> dict[str, Any]:
    """Return the config as a JSON value; the layers determine it."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }


def read_tree(bundle: Bundle, blobs: BlobReader, known: Tree | None = None) -> Tree:
    """Return the tree in a bundle, verified against the digest that the bundle claims.

    Returns `known` itself if it is that tree. Raises `BlobMissing`, `BlobCorrupt`, or
    `ExtractionRefused`.
    """
    if bundle.document.size > _DOCUMENT_LIMIT:
        raise _none(bundle.manifest, "Its first layer is too large.")
    with read_bytes(bundle.document, blobs.read(bundle.document.digest)) as reader:
        member = reader.next()
        if member is None or member.name != TREE or member.size > _DOCUMENT_LIMIT:
            raise _none(bundle.manifest, "Its first layer does not contain a tree.")
        document = reader.skim(member.size, None)
        if reader.next() is not None:
            raise _none(bundle.manifest, "Its first layer contains more than a tree.")
    if Digest.of(document) != bundle.tree:
        raise ExtractionRefused(
            f"{bundle.manifest} is not the bundle of {bundle.tree}",
            why="It contains a different tree.",
        )
    return known if known and known.document == document else Tree.decode(document)


def _none(manifest: Digest, why: str) -> ExtractionRefused:
    return ExtractionRefused(
        f"{manifest} is not a bundle", why=why, hint="Do not use the source that it came from."
    )


def _document(tree: Tree) -> Iterator[bytes]:
    yield tar.header(tar.Member(TREE, len(tree.document)))
    yield tree.document
    yield tar.padding(len(tree.document))


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
