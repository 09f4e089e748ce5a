"""The node for a project's tree, whose files are scanned anew each time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value
from flyte_build.cas.records import Record
from flyte_build.errors import ExtractionRefused, FileUnstable, FlyteError, StoreError
from flyte_build.graph.explain import counted
from flyte_build.graph.node import Cheap, Made, Node, Outcomes, Resolve
from flyte_build.workspace.workspace import Workspace

from .copy_style import CopyStyle
from .identity import bundle_label
from .scan import Scanner
from .snapshot import Scan

if TYPE_CHECKING:
    from .tree import Tree


_LOOKS = 5  # Maximum scans of a project that is being edited.


class LoadedFiles(NamedTuple):
    """Files that a tree must contain in any copy style, as importing `workspace`'s file has shown.

    `paths` are paths in the tree; `include` are pairs of a directory and a pattern. `contents` maps
    the paths of files that were read to their sha256 (hex); `disturbed` is whether the import may
    have changed files.
    """

    workspace: Workspace
    paths: Collection[str]
    include: Collection[tuple[str, str]]
    contents: Mapping[str, str]
    disturbed: bool


class TreeNode(Cheap):
    """The tree of a project in one copy style. Once it is resolved, `scans` holds its scans.

    `loaded` returns the result of the node `finder`, once that is resolved; `scanner` is for the
    root of the workspace; the `cache` may have the last tree, to explain what changed.
    """

    kind = "tree"

    def __init__(
        self,
        workspace: Workspace,
        finder: Node,
        loaded: Callable[[], LoadedFiles],
        copy_style: CopyStyle,
        scanner: Scanner,
        cache: Cache,
    ) -> None:
        label = f"tree:{workspace.root}/{workspace.file} {copy_style}"
        super().__init__(copy_style, label, (finder,))
        self._find, self._copy_style = loaded, copy_style
        self._scanner, self._cache = scanner, cache
        self._scanned: Scan | None = None
        self._tree: Tree | None = None
        self._before: Digest | None = None
        self.scans: list[Scan] = []

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """Return the digest of the tree itself: the scan has already compared its files."""
        return {"style": self._copy_style, "tree": self._digest()}

    def scan_ahead(self) -> None:
        """Scan everything before discovery is done, if the copy style is `all`.

        Discovery does not affect which files are below the root, unless the import writes some.
        """
        if self._copy_style == "all":
            began = time.perf_counter()
            try:
                self._scanned = self._scanner.scan_all()
            except FlyteError:
                return  # It will be raised again when this node is resolved.
            self.ahead = time.perf_counter() - began

    def _digest(self) -> Digest:
        self._tree, self._loaded = None, self._find()
        ahead = self._scanned if self._scanned and not self._loaded.disturbed else None
        self.scans, self._scanned = self._scan(ahead), None
        for _ in range(_LOOKS):
            if not any(scan.is_recent for scan in self.scans):
                break
            again = self._scan(
                None
            )  # Files are read one after another: check that they all belong to one state.
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
        """Scan all files; `ahead` is a scan of the whole root that was made earlier."""
        if self._copy_style == "none":
            return []
        scans = [ahead or self._scanner.scan_all()] if self._copy_style == "all" else []
        workspace = self._loaded.workspace
        wanted: dict[str, list[str]] = {}
        for path in sorted({*self._loaded.paths, *self._included()}):
            place = next((place for place in workspace.beside if path.startswith(place + "/")), "")
            wanted.setdefault(place, []).append(path.removeprefix(place + "/") if place else path)
        for place, paths in sorted(wanted.items()):
            scanner = self._scanner
            if place:
                shown = f"{workspace.shown(place)}/"
                scanner = scanner.beside(workspace.absolute(place), f"{place}/", shown)
            scans.append(scanner.scan_files(paths, besides=scans[:1] if not place else []))
        return [scan for scan in scans if scan.folders or scan.before]

    def _included(self) -> Iterable[str]:
        if not self._loaded.include:
            return ()
        from .include import included

        return included(self._loaded.workspace, self._loaded.include, self._scanner.budget)

    def _compare(self) -> None:
        """Raise `FileUnstable` if the import read other file contents than the scans."""
        if self._copy_style == "none":
            return
        workspace, expected = self._loaded.workspace, self._loaded.contents
        there = {
            path: content for scan in self.scans for path, content in scan.contents_of(expected)
        }
        for path, content in expected.items():
            known = there.get(path)
            if known is None:  # It is reached through a link, or no longer exists.
                places = workspace.places(os.path.realpath(workspace.absolute(path)))
                known = next(
                    (each for scan in self.scans for _, each in scan.contents_of(places)), None
                )
            if known != content:
                raise changing(workspace.shown(path))

    def absolute(self, path: str) -> str:
        """Return the path on disk of a path in the tree."""
        return self._loaded.workspace.absolute(path)

    def holds(self, path: str) -> bool:
        """Whether the scans found a file or link with this path."""
        return any(scan.holds(path) for scan in self.scans)

    def tree(self) -> Tree:
        """Return the tree itself."""
        from .tree import Tree

        if self._tree is None:
            # No path is in two scans.
            self._tree = Tree([entry for scan in self.scans for entry in scan.entries()])
        return self._tree

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Return the tree's digest: there is nothing left to build."""
        return Made(self.tree().digest, ())

    def explain(self, inputs: Mapping[str, Value], last: Record) -> str:
        """Return which files changed since the last resolve."""
        seen = self._before == last.inputs["tree"] and [scan.difference() for scan in self.scans]
        if seen:  # The scans were compared with exactly that tree.
            return (
                counted(
                    {how: sorted(path for each in seen for path in each[how]) for how in seen[0]},
                    "file",
                )
                or "nothing changed"
            )
        previous = _last_tree(self._cache, bundle_label(self.label))
        if previous is None:
            return "files changed"
        shown = self._loaded.workspace.shown
        difference = self.tree().difference(previous)
        return (
            counted({how: sorted(map(shown, paths)) for how, paths in difference.items()}, "file")
            or "nothing changed"
        )


def _last_tree(cache: Cache, label: str) -> Tree | None:
    """Return the tree of the last bundle under a label, if it still exists."""
    from . import bundle

    record = cache.records.last(label)
    if record is None:
        return None
    try:
        return bundle.read_tree(bundle.read(record.artifact, cache.blobs), cache.blobs)
    except (StoreError, ExtractionRefused):
        return None


def changing(path: str = "") -> FileUnstable:
    """Return the error for a project that changes during preparation."""
    return FileUnstable(
        f"{path or 'The project'} changed while it was prepared",
        why="Its files were not all read in the same state.",
        hint="Run the command again once nothing writes to the project.",
    )
