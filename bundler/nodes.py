"""Nodes for packs and bundles."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record
from flyte_build.errors import ExtractionRefused
from flyte_build.graph.node import Made, Node, Outcomes, Resolve

from . import identity
from .snapshot import Contents
from .tree_node import TreeNode

if TYPE_CHECKING:
    from flyte_build.cas.blobs import Blobs
    from flyte_build.cas.layer import Layer

    from .bundle import Bundle


class PackNode(Node):
    """A pack of a tree: a layer, built by `write`, with a part of the entries, given by digest."""

    kind = "pack"

    def __init__(
        self,
        at: int,
        label: str,
        part: Digest,
        write: Callable[[], Layer],
        blobs: Blobs,
    ) -> None:
        super().__init__(f"pack {at}", f"{label} {at}")
        self._part, self.layer, self._blobs = part, write, blobs

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """Return the digest of the part of the tree."""
        return {"entries": self._part}

    def usable(self, record: Record) -> bool:
        """Whether the layer exists."""
        return self._blobs.has_all(record.refs)

    def explain(self, inputs: Mapping[str, Value], last: Record) -> str:
        """Return a fixed reason: packs are parts of a tree, which explains itself."""
        return "its files changed"

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Write the layer; the artifact is its diff_id, which does not depend on compression."""
        layer = self.layer()
        return Made(layer.diff_id, (layer.digest,))


class BundleNode(Node):
    """A bundle of a tree, in the store.

    The artifact is the digest of the manifest; the digest of the tree is the identity.
    """

    kind, format = identity.KIND, identity.FORMAT
    shared = True

    def __init__(self, tree: TreeNode, cache: Cache, counters: Counters) -> None:
        super().__init__(tree.name, identity.bundle_label(tree.label), (tree,))
        self._tree, self._cache, self._counters = tree, cache, counters

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """Return the digest of the tree."""
        return identity.bundle_inputs(outcomes[self._tree].artifact)

    def usable(self, record: Record) -> bool:
        """Whether all blobs exist."""
        return self._cache.blobs.has_all(identity.blobs_of(record))

    def accept(self, artifact: Digest, inputs: Mapping[str, Value]) -> tuple[Digest, ...]:
        """Prove a fetched bundle by extracting it, and return its blobs and its tree.

        Raises a `FlyteError` if it is not the bundle of that tree, byte by byte.
        """
        from . import bundle, extraction

        found = _claiming(bundle.read(artifact, self._cache.blobs), inputs)
        self._adopt_packs(found, extraction.take(self._cache, found, self._tree.tree()))
        return found.refs

    def explain(self, inputs: Mapping[str, Value], last: Record) -> str:
        """Return a fixed reason: the tree explains itself."""
        return "the tree changed"

    def packs(self, write: Callable[[Digest, list[int]], Layer]) -> list[PackNode]:
        """Return nodes for the packs of the tree.

        `write` builds one from a part's digest and the positions of its entries.
        """
        from .packs import cut

        tree = self._tree.tree()
        parts = [(tree.part_digest(positions), positions) for positions in cut(tree.sizes())]
        blobs = self._cache.blobs
        return [
            PackNode(at, self.label, part, partial(write, part, places), blobs)
            for at, (part, places) in enumerate(parts)
        ]

    def _adopt_packs(self, fetched: Bundle, paths: list[list[bytes]]) -> None:
        """Record packs of a proven bundle that equal ours, so that an edit rebuilds only one."""
        entries = self._tree.tree().entries
        layers = {tuple(held): layer for held, layer in zip(paths, fetched.packs, strict=True)}

        def layer_of(part: Digest, positions: list[int]) -> Layer:
            return layers[tuple(entries[at].path for at in positions)]

        for node in self.packs(layer_of):
            try:
                layer = node.layer()
            except KeyError:
                continue  # The tree was cut differently.
            inputs = node.inputs({})
            self._cache.records.add(
                Record(
                    key(node.kind, node.format, inputs),
                    node.kind,
                    layer.diff_id,
                    (layer.digest,),
                    inputs,
                )
            )

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Write the missing packs, then the manifest."""
        from flyte_build.cas.layer import Layer

        from . import bundle
        from .packs import Packer

        tree = self._tree.tree()
        # All scans of one scanner share it.
        contents = self._tree.scans[0].contents if self._tree.scans else Contents()
        packer = Packer(self._tree.absolute, contents, self._counters)
        blobs = self._cache.blobs

        def write(part: Digest, positions: list[int]) -> Layer:
            layer = contents.layers.get(part)
            if layer is None or not blobs.has(layer.digest):
                with blobs.batch() as batch:
                    layer = packer.pack([tree.entries[at] for at in positions], batch)
            return layer

        nodes = self.packs(write)
        outcomes = resolve(nodes)
        layers = []
        for node in nodes:
            record = outcomes[node].record
            assert record is not None
            (blob,) = record.refs
            layers.append(Layer(blob, os.path.getsize(blobs.path(blob)), record.artifact))
        with self._cache.blobs.batch() as batch:
            made = bundle.write(tree, layers, batch)
        return Made(made.manifest, made.refs)


def nothing_to_write(part: Digest, positions: list[int]) -> Layer:
    """Stand-in writer for dry runs; raises if called."""
    raise AssertionError("no pack must be built here")


def accept_bundle(cache: Cache, artifact: Digest, inputs: Mapping[str, Any]) -> tuple[Digest, ...]:
    """Prove a fetched bundle, as `BundleNode.accept` does, without extracting it.

    For a bundle that is fetched for its own sake.
    """
    from . import bundle
    from .proof import Proof

    found = _claiming(bundle.read(artifact, cache.blobs), inputs)
    Proof(cache.blobs, found, bundle.read_tree(found, cache.blobs)).run()
    return found.refs


def _claiming(found: Bundle, inputs: Mapping[str, Any]) -> Bundle:
    """Return the bundle; raise `ExtractionRefused` if it claims to be that of another tree."""
    if found.tree != inputs["tree"]:
        raise ExtractionRefused(
            f"{found.manifest} is the bundle of another tree",
            why=f"It claims to contain {found.tree}.",
        )
    return found
