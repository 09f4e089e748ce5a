"""The nodes wired together: what one file needs, resolved, surveyed, fetched; and where the bundle is extracted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flyte_build.bundler.copy_style import CopyStyle
from flyte_build.bundler.marker import find
from flyte_build.bundler.nodes import BundleNode, LoadedFiles, TreeNode, nothing_to_write
from flyte_build.bundler.scan import Progress, Scanner
from flyte_build.bundler.snapshot import Contents
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.records import Record
from flyte_build.discovery.node import Discovery
from flyte_build.errors import BlobCorrupt, BlobMissing, ExtractionRefused, NotLocked, StoreError
from flyte_build.graph.node import Node, Outcome, RemoteCache
from flyte_build.graph.resolver import Resolver
from flyte_build.workspace.workspace import Project

if TYPE_CHECKING:
    from flyte_build.bundler.budget import Budget
    from flyte_build.bundler.tree import Tree
    from flyte_build.images.environments.node import EnvironmentNode
    from flyte_build.images.lock.pins import PinnedBase
    from flyte_build.images.lock.project_lock import Pins


class Preparation:
    """Everything that one FILE needs, as a graph over one cache; nodes are resolved in the order in which they are asked for.

    `said` is told sentences for the user, `watch` and `begun` what happens to nodes, `progress` how far reading is; `elsewhere` is what
    other machines have made. With `locked` nothing is resolved that flyte.lock does not pin; `images` are references by name,
    `builder` is what builds images.
    """

    def __init__(
        self,
        project: Project,
        copy_style: CopyStyle,
        cache: Cache,
        counters: Counters,
        *,
        remake: bool = False,
        dry: bool = False,
        said: Callable[[str], None] = lambda sentence: None,
        watch: Callable[[Outcome], None] = lambda outcome: None,
        begun: Callable[[Node, str], None] = lambda node, why: None,
        progress: Progress = lambda done, total: None,
        allowed: frozenset[str] = frozenset(),
        budget: "Budget | None" = None,
        elsewhere: RemoteCache | None = None,
        locked: bool = False,
        images: Mapping[str, str] = MappingProxyType({}),
        builder: str = "native",
    ) -> None:
        self.project, self.cache, self._counters, self._said = project, cache, counters, said
        self._budget, self._elsewhere = budget, elsewhere
        self._dry, self._locked, self._images = dry, locked or dry, images
        self._builder = builder
        self._environments: dict[str, EnvironmentNode] = {}
        self._resolver = Resolver(cache.records, remake=remake, dry=dry, elsewhere=elsewhere, watch=watch, begun=begun)
        self.discovery = Discovery(project, cache, counters, said, dry, self._meanwhile)
        contents = Contents()

        def scanner(project: Project, place: str) -> Scanner:
            return Scanner(
                project.absolute(place),
                cache.index,
                counters,
                blobs=None if dry or elsewhere else cache.blobs,  # Nothing is packed before it is known whether others have it.
                budget=budget,
                allowed=allowed,
                progress=progress,
                contents=contents,
                place=f"{place}/" if place else "",
                shown=f"{project.shown(place)}/" if place else "",
            )

        self.tree = TreeNode(project, self.discovery, self._loaded, copy_style, scanner, self._previous_tree)
        self.bundle = BundleNode(self.tree, cache, counters, lambda path: self.discovery.project.absolute(path))

    def _loaded(self) -> LoadedFiles:
        found, document = self.discovery, self.discovery.document
        paths = {*document["modules"], *document["read"]}
        return LoadedFiles(found.project, paths, document["include"], found.contents(), found.disturbed)

    def _meanwhile(self) -> None:
        """What can be done while a file is imported in another process."""
        self.tree.scan_ahead()
        if self._elsewhere:
            self._elsewhere.get_ready()

    @property
    def outcomes(self) -> list[Outcome]:
        """What was resolved so far, packs and other children included, in order."""
        return [each for outcome in self._resolver.outcomes.values() for each in (*outcome.children, outcome)]

    def discover(self) -> Discovery:
        """Resolve discovery alone."""
        self._resolver.resolve([self.discovery])
        document = self.discovery.document
        for path in document["withheld"]:
            self._said(f"{path} was read while {self.project.file} was imported, and is not in the bundle: it may hold secrets.")
        for path in document["loose"]:
            self._said(f"{path} was loaded by its path from outside of the project, and is not in the bundle.")
        return self.discovery

    def say_what_binds(self) -> None:
        """Say which files of the bundle run on this platform alone, if there are any."""
        if names := ", ".join(map(self.discovery.project.shown, self.discovery.document["native"])):
            here = os.uname()
            self._said(f"The bundle holds machine code, so it runs on {here.sysname} {here.machine} with this Python alone: {names}.")

    def start_over(self) -> None:
        """Forget what was resolved: files were edited meanwhile."""
        self._resolver.outcomes.clear()

    @cached_property
    def pins(self) -> "Pins":
        """The pins of the project."""
        from flyte_build.images.lock.project_lock import Pins

        return Pins(self.project.root, self._said, locked=self._locked, look_up=self._look_up)

    def _look_up(self, reference: str, with_python: bool) -> "PinnedBase":
        from flyte_build.cas.registry import open_repository
        from flyte_build.cas.registry.retry_budget import RetryBudget
        from flyte_build.images.build.base import Bases

        patience = RetryBudget()
        return Bases(self.cache, lambda name: open_repository(name, self._counters, patience)).look_up(reference, with_python)

    def image(self, task: Mapping[str, Any]) -> Any:
        """The image of a task, or of an environment, as a JSON value, with references in the place of names."""
        image = task["image"]
        if image == "auto" and not self._images:
            return image
        from flyte_build.images.recipe import chosen

        return chosen(image, self._images, self._builder)

    def environment(self, image: Any) -> "EnvironmentNode":
        """The local environment of a declared image, as a JSON value."""
        from flyte_build.images.environments.node import EnvironmentNode

        same = json.dumps(image, sort_keys=True)
        if same not in self._environments:
            name = next(each["name"] for each in self.discovery.document["reachable"] if self.image(each) == image)
            node = EnvironmentNode(name, image, self.project.root, self.cache, lambda: self.pins, (self.discovery,), self._dry)
            self._environments[same] = node
        return self._environments[same]

    def _refused(self, node: "EnvironmentNode") -> str:
        try:
            return node.refusal()
        except NotLocked:
            if not self._dry:
                raise
            return ""

    def environments(self) -> "list[EnvironmentNode]":
        """The local environments of all images that the file declares. Discovers."""
        self._resolver.resolve([self.discovery])
        images = [self.image(each) for each in self.discovery.document["reachable"]]
        nodes = dict.fromkeys(self.environment(image) for image in images if not isinstance(image, str))
        return [node for node in nodes if not self._refused(node)]

    def resolve(self, *others: Node) -> Mapping[Node, Outcome]:
        """Resolve the bundle, which is in the store then, and `others`."""
        outcomes = self._resolver.resolve([self.bundle, *others])
        if outcomes[self.bundle].state == "made":
            self.cache.publish_index()
            self.say_what_binds()
        return outcomes

    def fetch(self) -> Outcome:
        """Resolve all, in a dry preparation, and fetch the bundle if others have it and this machine has not."""
        outcomes = self._resolver.resolve([self.bundle])
        outcome = outcomes[self.bundle]
        if outcome.fetched and outcome.key is not None and self._elsewhere is not None:
            inputs = self.bundle.inputs(outcomes)
            if not self._elsewhere.obtain(outcome.key, lambda artifact: self.bundle.accept(artifact, inputs)):
                outcome.state = "missing"
        return outcome

    def shareable(self) -> list[Record]:
        """The records of all that was resolved and is good on other machines."""
        return [each.record for each in self._resolver.outcomes.values() if each.node.shared and each.record]

    def survey(self) -> list[Outcome]:
        """Resolve all without making anything, also the packs of a bundle that is there; needed nodes come first."""
        outcomes = self._resolver.resolve([self.bundle, *self.environments()])
        if outcomes[self.tree].artifact is not None:
            packs = Resolver(self.cache.records, dry=True).resolve(self.bundle.packs(nothing_to_write))
            outcomes[self.bundle].children[:] = packs.values()
        return self.outcomes

    def size(self, outcome: Outcome) -> int | None:
        """The bytes of an artifact: a tree's are its files, any other's its blobs; None for what is not there."""
        if outcome.node is self.tree:
            return None if outcome.artifact is None else sum(size for _, size in self.tree.tree().sizes())
        if outcome.record is None or not outcome.node.usable(outcome.record):
            return None
        if outcome.node.kind == "environment":
            return None
        paths = map(self.cache.blobs.path, outcome.record.refs)
        return sum(os.path.getsize(path) for path in paths if os.path.exists(path)) or None

    def extracted(self) -> str:
        """The folder in which the tree is extracted; a bundle that turns out to be bad is forgotten and made again."""
        tree = self._resolver.outcomes[self.tree].artifact
        assert tree is not None
        if found := find(self.cache, tree):
            return found
        from flyte_build.bundler import bundle, extraction
        from flyte_build.bundler.budget import Budget
        from flyte_build.cas.verify import forget

        record, was_refused = self._resolver.outcomes[self.bundle].record, False
        for left in range(len(record.refs) if record else 1, -1, -1):  # Each turn finds one bad blob at least.
            record = self._resolver.outcomes[self.bundle].record
            assert record is not None
            try:
                return extraction.extract(self.cache, bundle.read(record.artifact, self.cache.blobs), self._budget or Budget())
            except (BlobCorrupt, BlobMissing) as error:
                if not left:
                    raise
                self._said(f"{error.what}; it is made again.")
            except ExtractionRefused as error:
                if was_refused:
                    raise
                was_refused = True
                self._said(f"{error.what}; it is made again. {error.why}")
                forget(self.cache, record)
            del self._resolver.outcomes[self.bundle]
            self.resolve()
        raise StoreError("The bundle cannot be extracted")

    def _previous_tree(self) -> "Tree | None":
        from flyte_build.bundler import bundle

        record = self.cache.records.last(self.bundle.label)
        try:
            return bundle.read_tree(bundle.read(record.artifact, self.cache.blobs), self.cache.blobs) if record else None
        except (StoreError, ExtractionRefused):
            return None
