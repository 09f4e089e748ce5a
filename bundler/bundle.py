"""Bundles: a tree as an OCI image, that can be extracted, appended to an image, or mounted as a volume.

The manifest and the config are those of the OCI image-spec 1.1 (manifest.md, config.md). The first layer holds the
tree's own document at `opt/flyte/code.tree`; the others are packs, rooted at `opt/flyte/code/`. The platform in the
config is fixed: a bundle holds no machine code of its own.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

from flyte_build.cas import tar
from flyte_build.cas.blobs import Batch, BlobReader
from flyte_build.cas.digest import Digest
from flyte_build.cas.layer import MEDIA_TYPES, Layer, write_layer
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.errors import ExtractionRefused

from .tree import Tree

TREE = b"opt/flyte/code.tree"
ANNOTATION = "dev.flyte.tree"
_CONFIG = "application/vnd.oci.image.config.v1+json"
WINDOW = 8 << 20  # Bytes of zstd window that a layer may ask for (RFC 8878, 3.1.1.1.2 recommends to allow 8 MiB).
_DOCUMENT_LIMIT = 256 << 20


@dataclass(frozen=True)
class Bundle:
    """One copy of a tree: its manifest, its config, the layer with the tree's document, and the packs."""

    manifest: Digest
    config: Digest
    tree: Digest
    document: Layer
    packs: tuple[Layer, ...]

    def blobs(self) -> tuple[Digest, ...]:
        """All blobs that make up this copy, the manifest first."""
        return (self.manifest, self.config, self.document.digest, *(pack.digest for pack in self.packs))


def write(tree: Tree, packs: list[Layer], batch: Batch) -> Bundle:
    """Write the bundle of `tree`, whose packs are there (or in the batch) already."""
    document = write_layer(_document(tree), batch)
    layers = [document, *packs]
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )
    manifest = Manifest.of_layers(
        Descriptor(_CONFIG, Digest.of(config), len(config)),
        [Descriptor(MEDIA_TYPES["zstd"], layer.digest, layer.size) for layer in layers],
        annotations={ANNOTATION: tree.digest},
    )
    return Bundle(batch.add(manifest.data), batch.add(config), tree.digest, document, tuple(packs))


def read(manifest: Digest, blobs: BlobReader) -> Bundle:
    """The bundle of that manifest. Raises `BlobMissing`, `BlobCorrupt`, or `ExtractionRefused` for what is no bundle."""
    try:
        outer = json.loads(blobs.read(manifest))
        config = Digest.parse(outer["config"]["digest"])
        diff_ids = json.loads(blobs.read(config))["rootfs"]["diff_ids"]
        layers = [
            Layer(Digest.parse(layer["digest"]), int(layer["size"]), Digest.parse(diff_id))
            for layer, diff_id in zip(outer["layers"], diff_ids, strict=True)
        ]
        return Bundle(manifest, config, Digest.parse(outer["annotations"][ANNOTATION]), layers[0], tuple(layers[1:]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise ExtractionRefused(f"{manifest} is no bundle", why=f"Its manifest is malformed ({error!r}).") from None


def read_tree(bundle: Bundle, blobs: BlobReader) -> Tree:
    """The tree that a bundle carries, verified against the digest that it claims."""
    import zstandard

    data = blobs.read(bundle.document.digest)
    if len(data) != bundle.document.size:
        raise ExtractionRefused(f"{bundle.manifest} is no bundle", why="A layer is not of the size that it says.")
    try:
        with zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(data) as stream:
            reader = tar.Reader(io.BufferedReader(stream))
            member = reader.next()
            if member is None or member.name != TREE or member.size > _DOCUMENT_LIMIT:
                raise ExtractionRefused(f"{bundle.manifest} is no bundle", why="Its first layer does not hold a tree.")
            document = reader.skim(member.size, None)
            if reader.next() is not None:
                raise ExtractionRefused(f"{bundle.manifest} is no bundle", why="Its first layer holds more than a tree.")
    except zstandard.ZstdError as error:
        raise ExtractionRefused(
            f"{bundle.manifest} is no bundle", why=f"Its first layer is not compressed as it should be ({error})."
        ) from None
    tree = Tree.decode(document)
    if tree.digest != bundle.tree:
        raise ExtractionRefused(f"{bundle.manifest} is not the bundle of {bundle.tree}", why="The tree inside is another.")
    return tree


def _document(tree: Tree) -> Iterator[bytes]:
    yield tar.header(tar.Member(TREE, len(tree.document)))
    yield tree.document
    yield tar.padding(len(tree.document))


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
