"""The nodes of this product beside discovery: tree, packs, bundle."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record
from flyte_build.errors import ExtractionRefused, FileUnstable, FlyteError
from flyte_build.graph.explain import counted
from flyte_build.graph.node import Cheap, Made, Node, Outcomes, Resolve
from flyte_build.workspace.workspace import Workspace

from . import identity
from .copy_style import CopyStyle
from .scan import Scanner
from .snapshot import Contents, Scan

if TYPE_CHECKING:
    from flyte_build.cas.layer import Layer

    from .bundle import Bundle
    from .tree import Tree

_LOOKS = 5  # At a project that is edited meanwhile.


@dataclass(frozen=True)
class LoadedFiles:
    """What a tree must hold whatever is copied, as importing the `workspace`'s file has shown.

    `paths` are places in the tree, `include` folders with patterns. `contents` are the sha256 (hex)
    by place of what was read; `disturbed` says that the import may have changed files.
    """

    workspace: Workspace
    paths: Collection[str]
    include: Collection[tuple[str, str]]
    contents: Mapping[str, str]
    disturbed: bool


class TreeNode(Cheap):
    """The tree of a project in one copy style. Once resolved, `scans` hold what was seen.

    `loaded` gives what the node `finder` has found, once that is resolved; `scanner` makes the
    scanner of a folder whose files lie in the tree below a place; `previous` gives the tree of the
    last resolve, to explain what changed.
    """

    kind = "tree"

    def __init__(
        self,
        workspace: Workspace,
        finder: Node,
        loaded: Callable[[], LoadedFiles],
        copy_style: CopyStyle,
        scanner: Callable[[Workspace, str], Scanner],
        previous: Callable[[], Tree | None],
    ) -> None:
        label = f"tree:{workspace.root}/{workspace.file} {copy_style}"
        super().__init__(copy_style, label, (finder,))
        self._find, self._copy_style = loaded, copy_style
        self._new_scanner, self._previous = scanner, previous
        self._scanner = scanner(workspace, "")
        self._scanned: Scan | None = None
        self._tree: Tree | None = None
        self._before: Digest | None = None
        self.scans: list[Scan] = []

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """The tree's own digest: files are what a tree is made of, and are compared by the scan."""
        return {"style": self._copy_style, "tree": self._digest()}

    def scan_ahead(self) -> None:
        """Scan before discovery is done, which decides nothing of what is below the root, but for
        what the import writes.
        """
        if self._copy_style == "all":
            began = time.perf_counter()
            try:
                self._scanned = self._scanner.scan_all()
            except FlyteError:
                return  # It will be raised again, when it is this node's turn.
            self.ahead = time.perf_counter() - began

    def _digest(self) -> Digest:
        self._tree, self._loaded = None, self._find()
        ahead = self._scanned if self._scanned and not self._loaded.disturbed else None
        self.scans, self._scanned = self._scan(ahead), None
        for _ in range(_LOOKS):
            if not any(scan.is_recent for scan in self.scans):
                break
            again = self._scan(None)  # Files are looked at one after another: is it one state?
            if [scan.state for scan in again] == [scan.state for scan in self.scans]:
                break
            self.scans = again
        else:
            raise changing()
        self._compare()
        if known := self._scanner.remembered(*self.scans):
            return known
        self._before = self._scanner.remembered_before(*self.scans)
        return self._scanner.remember(self.tree().digest, *self.scans)

    def _scan(self, ahead: Scan | None) -> list[Scan]:
        """Look at all files; `ahead` is a scan of the whole root that was made already."""
        if self._copy_style == "none":
            return []
        scans = [ahead or self._scanner.scan_all()] if self._copy_style == "all" else []
        workspace = self._loaded.workspace
        wanted: dict[str, list[str]] = {}
        for path in sorted({*self._loaded.paths, *self._included()}):
            place = next((place for place in workspace.beside if path.startswith(place + "/")), "")
            wanted.setdefault(place, []).append(path.removeprefix(place + "/") if place else path)
        for place, paths in sorted(wanted.items()):
            scanner = self._new_scanner(workspace, place) if place else self._scanner
            scans.append(scanner.scan_files(paths, besides=scans[:1] if not place else []))
        return [scan for scan in scans if scan.folders or scan.before]

    def _included(self) -> Iterable[str]:
        if not self._loaded.include:
            return ()
        from .include import included

        return included(self._loaded.workspace, self._loaded.include, self._scanner.budget)

    def _compare(self) -> None:
        """Raise `FileUnstable` unless the files that the import saw are those that
        the scans saw.
        """
        if self._copy_style == "none":
            return
        workspace, expected = self._loaded.workspace, self._loaded.contents
        there = {
            path: content for scan in self.scans for path, content in scan.contents_of(expected)
        }
        for path, content in expected.items():
            known = there.get(path)
            if known is None:  # It is reached through a link, or has vanished.
                places = workspace.places(os.path.realpath(workspace.absolute(path)))
                known = next(
                    (each for scan in self.scans for _, each in scan.contents_of(places)), None
                )
            if known != content:
                raise changing(workspace.shown(path))

    def holds(self, path: str) -> bool:
        """Whether a file or link of this path is among what the scans found."""
        return any(scan.holds(path) for scan in self.scans)

    def tree(self) -> Tree:
        """The tree itself."""
        from .tree import Tree

        if self._tree is None:
            # No path is in two of them.
            self._tree = Tree([entry for scan in self.scans for entry in scan.entries()])
        return self._tree

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Nothing is left to do: knowing the files is having the tree."""
        return Made(self.tree().digest, ())

    def explain(self, inputs: Mapping[str, Value], last: Record) -> str:
        """Which files changed since the last resolve."""
        seen = self._before == last.inputs["tree"] and [scan.difference() for scan in self.scans]
        if seen:  # The scans compared with just that tree.
            return (
                counted(
                    {how: sorted(path for each in seen for path in each[how]) for how in seen[0]},
                    "file",
                )
                or "nothing changed"
            )
        previous = self._previous()
        if previous is None:
            return "files changed"
        shown = self._loaded.workspace.shown
        difference = self.tree().difference(previous)
        return (
            counted({how: sorted(map(shown, paths)) for how, paths in difference.items()}, "file")
            or "nothing changed"
        )


def changing(path: str = "") -> FileUnstable:
    """The error of a project that is edited while it is prepared."""
    return FileUnstable(
        f"{path or 'The project'} changed while it was prepared",
        why="What was looked at first and what was looked at last are not of one state.",
        hint="Run the command again when nothing writes to the project.",
    )


class PackNode(Node):
    """One pack of a tree: a part of its entries, known by its digest, as a layer that `write`
    makes.
    """

    kind = "pack"

    def __init__(
        self,
        at: int,
        label: str,
        part: Digest,
        write: Callable[[], Layer],
        blobs_has: Callable[[Digest], bool],
    ) -> None:
        super().__init__(f"pack {at}", f"{label} {at}")
        self._part, self.layer, self._has = part, write, blobs_has

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """The part of the tree, by digest."""
        return {"entries": self._part}

    def usable(self, record: Record) -> bool:
        """Whether the layer is there."""
        return all(map(self._has, record.refs))

    def explain(self, inputs: Mapping[str, Value], last: Record) -> str:
        """Packs are parts of a tree, which explains itself."""
        return "its files changed"

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Write the layer; the artifact is the tar's digest, which does not depend on
        compression.
        """
        layer = self.layer()
        return Made(layer.diff_id, (layer.digest,))


class BundleNode(Node):
    """A tree as a bundle in the store. The artifact is the manifest's digest; the tree's is the
    identity.
    """

    kind, format = identity.KIND, identity.FORMAT
    shared = True

    def __init__(
        self, tree: TreeNode, cache: Cache, counters: Counters, absolute: Callable[[str], str]
    ) -> None:
        super().__init__(tree.name, "bundle" + tree.label.removeprefix("tree"), (tree,))
        self._tree, self._cache, self._counters, self._absolute = tree, cache, counters, absolute

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """The tree, by digest."""
        return identity.bundle_inputs(outcomes[self._tree].artifact)

    def usable(self, record: Record) -> bool:
        """Whether all blobs are there."""
        return all(map(self._cache.blobs.has, identity.blobs_of(record)))

    def accept(self, artifact: Digest, inputs: Mapping[str, Value]) -> tuple[Digest, ...]:
        """All blobs of a bundle that another machine made, and its tree, which is extracted then:
        that proves it.

        Raises a `FlyteError` if it is not the bundle of that tree, byte by byte.
        """
        from . import bundle, extraction

        found = _claiming(bundle.read(artifact, self._cache.blobs), inputs)
        self._adopt_packs(found, extraction.take(self._cache, found, self._tree.tree()))
        return (*found.blobs(), found.tree)

    def explain(self, inputs: Mapping[str, Value], last: Record) -> str:
        """What its tree says."""
        return "the tree changed"

    def packs(self, write: Callable[[Digest, list[int]], Layer]) -> list[PackNode]:
        """The packs of the tree; `write` makes one of a part's digest and the positions of its
        entries.
        """
        from .packs import cut

        tree = self._tree.tree()
        parts = [(tree.part_digest(positions), positions) for positions in cut(tree.sizes())]
        has = self._cache.blobs.has
        return [
            PackNode(at, self.label, part, partial(write, part, places), has)
            for at, (part, places) in enumerate(parts)
        ]

    def _adopt_packs(self, fetched: Bundle, paths: list[list[bytes]]) -> None:
        """Record those packs of a bundle that proved right which hold just what ours would, so that
        an edit remakes one of them.
        """
        entries = self._tree.tree().entries
        layers = {tuple(held): layer for held, layer in zip(paths, fetched.packs, strict=True)}

        def layer_of(part: Digest, positions: list[int]) -> Layer:
            return layers[tuple(entries[at].path for at in positions)]

        for node in self.packs(layer_of):
            try:
                layer = node.layer()
            except KeyError:
                continue  # It was cut otherwise.
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
        """Write the packs that are not there yet, then the manifest."""
        from flyte_build.cas.layer import Layer

        from . import bundle
        from .packs import Packer

        tree = self._tree.tree()
        # One scanner's scans share theirs.
        contents = self._tree.scans[0].contents if self._tree.scans else Contents()
        packer = Packer(self._absolute, contents, self._counters)
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
        return Made(made.manifest, (*made.blobs(), tree.digest))


def nothing_to_write(part: Digest, positions: list[int]) -> Layer:
    """What writes no pack: for those that are only looked at."""
    raise AssertionError("No pack is made here")


def accept_bundle(cache: Cache, artifact: Digest, inputs: Mapping[str, Any]) -> tuple[Digest, ...]:
    """What `BundleNode.accept` gives for these inputs: for a bundle that is fetched for its own
    sake, which is not extracted.
    """
    from . import bundle
    from .proof import Proof

    found = _claiming(bundle.read(artifact, cache.blobs), inputs)
    Proof(cache.blobs, found, bundle.read_tree(found, cache.blobs)).run()
    return (*found.blobs(), found.tree)


def _claiming(found: Bundle, inputs: Mapping[str, Any]) -> Bundle:
    """The bundle itself. Raises `ExtractionRefused` if it says that it is another tree's than
    `inputs` ask for.
    """
    if found.tree != inputs["tree"]:
        raise ExtractionRefused(
            f"{found.manifest} is the bundle of another tree",
            why=f"It says that it holds {found.tree}.",
        )
    return found
