"""Preparation of one file: its nodes are connected and resolved, and its bundle is extracted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flyte_build.bundler.identity import blobs_of
from flyte_build.bundler.index import publish_index
from flyte_build.bundler.marker import find
from flyte_build.bundler.nodes import BundleNode
from flyte_build.bundler.scan import Scanner, ScanOptions
from flyte_build.bundler.tree_node import LoadedFiles, TreeNode
from flyte_build.cas.records import Record
from flyte_build.discovery.node import Discovery
from flyte_build.errors import (
    BlobCorrupt,
    BlobMissing,
    ExtractionRefused,
    NotLocked,
    StoreError,
    UsageError,
)
from flyte_build.graph.node import Node, Outcome
from flyte_build.graph.resolver import Resolver
from flyte_build.images.image_choice import ImageChoice
from flyte_build.workspace.workspace import Workspace

from .session import Session

if TYPE_CHECKING:
    from flyte_build.images.environments.node import EnvironmentNode
    from flyte_build.images.lock.pins import PinnedBase
    from flyte_build.images.lock.project_lock import Pins

    from .container_images import ContainerImages


class FilePlan:
    """Graph of everything that one file needs; nodes are resolved in the order of requests."""

    def __init__(self, session: Session, workspace: Workspace) -> None:
        options = session.settings.run
        if options.copy_style == "none" and not options.version:
            raise UsageError(
                "`--copy-style none` needs a `--version`",
                why="Without code in the bundle, only `--version` distinguishes versions.",
                hint="Add `--version v1`, or omit `--copy-style none`.",
            )
        self.session, self.workspace = session, workspace
        self._environments: dict[str, EnvironmentNode] = {}
        self._images: dict[str, ImageChoice] = {}
        self._remote = session.sharing if session.settings.registries.reads else None
        self._containers: ContainerImages | None = None

    @cached_property
    def _resolver(self) -> Resolver:
        session = self.session
        return Resolver(
            session.cache.records,
            session.reporter,
            remake=session.settings.remake,
            read_only=session.read_only,
            remote=self._remote,
        )

    @cached_property
    def discovery(self) -> Discovery:
        """The node of the file's tasks."""
        session = self.session
        return Discovery(
            self.workspace,
            session.cache,
            session.stores.counters,
            session.reporter.note,
            session.read_only,
            self._meanwhile,
        )

    @cached_property
    def tree(self) -> TreeNode:
        """The node of the tree of files."""
        session, settings, cache = self.session, self.session.settings, self.session.cache
        options = ScanOptions(settings.budget, settings.allow_secrets, session.reporter.files_read)
        # With remote caches, nothing is packed before they were searched for the bundle.
        blobs = None if session.read_only or self._remote else cache.blobs
        root, counters = self.workspace.root, session.stores.counters
        scanner = Scanner(root, cache.index, counters, options, blobs=blobs)
        style = settings.run.copy_style
        return TreeNode(self.workspace, self.discovery, self._loaded, style, scanner, cache)

    @cached_property
    def bundle(self) -> BundleNode:
        """The node of the tree's bundle."""
        session = self.session
        return BundleNode(self.tree, session.cache, session.stores.counters)

    def _loaded(self) -> LoadedFiles:
        found, findings = self.discovery, self.discovery.findings
        paths = {*findings.modules, *findings.read}
        return LoadedFiles(
            found.workspace, paths, findings.include, found.contents(), found.disturbed
        )

    def _meanwhile(self) -> None:
        """Do other work while the file is imported in another process."""
        self.tree.scan_ahead()
        if self._remote:
            self._remote.connect()

    @property
    def outcomes(self) -> list[Outcome]:
        """Outcomes of everything resolved so far, in order, including packs and other children."""
        found = [
            each
            for outcome in self._resolver.outcomes.values()
            for each in (*outcome.children, outcome)
        ]
        return [*found, *self._containers.outcomes] if self._containers else found

    @property
    def containers(self) -> ContainerImages:
        """The images of the file's containers."""
        if self._containers is None:
            from .container_images import ContainerImages

            self._containers = ContainerImages(self.session, self.workspace.root, lambda: self.pins)
        return self._containers

    def discover(self) -> Discovery:
        """Resolve discovery alone."""
        with self.session.cache.preparing():
            self._resolver.resolve([self.discovery])
        findings, note = self.discovery.findings, self.session.reporter.note
        for path in findings.withheld:
            note(
                f"{path} was read while {self.workspace.file} was imported, but is not in the"
                " bundle, because it may contain secrets."
            )
        for path in findings.loose:
            note(
                f"{path} was loaded by its path from outside the project, and is not in the bundle."
            )
        return self.discovery

    def say_what_binds(self) -> None:
        """Note which files of the bundle run only on this platform, if there are any."""
        if names := ", ".join(map(self.discovery.workspace.shown, self.discovery.findings.native)):
            here = os.uname()
            self.session.reporter.note(
                "The bundle contains machine code, so it runs only on"
                f" {here.sysname} {here.machine} with this version of Python: {names}."
            )

    def start_over(self) -> None:
        """Forget all outcomes, because files were edited meanwhile."""
        self._resolver.outcomes.clear()

    @cached_property
    def pins(self) -> Pins:
        """The pins of the project; in a read-only session, missing pins are not looked up."""
        from flyte_build.images.lock.project_lock import Pins

        locked = self.session.settings.locked or self.session.read_only
        return Pins(
            self.workspace.root, self.session.reporter.note, locked=locked, look_up=self._look_up
        )

    def _look_up(self, reference: str, with_python: bool) -> PinnedBase:
        from flyte_build.images.build.base import Bases

        return Bases(self.session.cache, self.session.stores.repositories.open).look_up(
            reference, with_python
        )

    def image(self, declared: Any) -> ImageChoice:
        """Return the image that a task or an environment declares, with names resolved.

        `declared` is a JSON value. Equal declarations give the same object.
        """
        settings, value = self.session.settings, declared
        if declared != "auto" or settings.images:
            from flyte_build.images.recipe import chosen

            value = chosen(declared, settings.images, settings.builder)
        image = ImageChoice(value)
        return self._images.setdefault(image.text, image)

    def environment(self, image: ImageChoice, name: str) -> EnvironmentNode:
        """Return the node of the local environment of a declared image.

        `name` is that of a `TaskEnvironment` with the image.
        """
        from flyte_build.images.environments.node import EnvironmentNode

        if image.text not in self._environments:
            session = self.session
            node = EnvironmentNode(
                name,
                image,
                self.workspace.root,
                session.cache,
                lambda: self.pins,
                (self.discovery,),
            )
            node.remembers = not session.read_only
            node.progress = session.reporter.bytes_moved
            self._environments[image.text] = node
        return self._environments[image.text]

    def _refused(self, node: EnvironmentNode) -> str:
        try:
            return node.refusal()
        except NotLocked:
            if not self.session.read_only:
                raise
            return ""

    def environments(self) -> list[EnvironmentNode]:
        """Return the local environments of all images that the file declares.

        Resolves discovery. Images that cannot be installed as local environments are left out.
        """
        self._resolver.resolve([self.discovery])
        images = [(self.image(each.image), each.name) for each in self.discovery.findings.reachable]
        nodes = dict.fromkeys(self.environment(*each) for each in images if each[0].is_declared)
        return [node for node in nodes if not self._refused(node)]

    def resolve(self, *others: Node) -> Mapping[Node, Outcome]:
        """Resolve the bundle and `others`."""
        outcomes = self._resolver.resolve([self.bundle, *others])
        if outcomes[self.bundle].state == "made":
            publish_index(self.session.cache)
            self.say_what_binds()
        return outcomes

    def fetch(self) -> Outcome:
        """Resolve the bundle in a read-only session, and fetch it if there is only a remote copy.

        The outcome is `missing` if there is no usable copy.
        """
        outcomes = self._resolver.resolve([self.bundle])
        outcome = outcomes[self.bundle]
        if outcome.fetched and outcome.key is not None and self._remote is not None:
            inputs = self.bundle.inputs(outcomes)
            if not self._remote.fetch(
                outcome.key, lambda artifact: self.bundle.accept(artifact, inputs)
            ):
                return outcome._replace(state="missing")
        return outcome

    def shareable(self) -> list[Record]:
        """Return the resolved records that other machines can use."""
        return [
            each.record
            for each in self._resolver.outcomes.values()
            if each.node.shared and each.record
        ]

    def publish(self) -> None:
        """Start publishing everything that was prepared; `finish` waits for it."""
        self.session.sharing.publish(self.shareable())

    def finish(self) -> None:
        """Publish built images, and wait until everything else that was prepared is published."""
        if self._containers:
            self._containers.publish()
        if published := self.session.sharing.finish():
            self.session.reporter.published(
                str(self.session.settings.registries.write), len(published)
            )

    def extracted(self) -> str:
        """Extract the tree, unless it is extracted already, and return its directory.

        A bundle that turns out to be corrupt is forgotten and rebuilt.
        """
        cache, tree = self.session.cache, self._resolver.outcomes[self.tree].artifact
        assert tree is not None
        if found := find(cache, tree):
            return found
        from flyte_build.bundler import bundle, extraction
        from flyte_build.bundler.budget import Budget
        from flyte_build.cas.verify import forget

        budget, note = self.session.settings.budget or Budget(), self.session.reporter.note
        record, was_refused = self._resolver.outcomes[self.bundle].record, False
        blobs = blobs_of(record) if record else []
        for left in range(len(blobs), -1, -1):  # Each turn finds at least one bad blob.
            record = self._resolver.outcomes[self.bundle].record
            assert record is not None
            try:
                return extraction.extract(cache, bundle.read(record.artifact, cache.blobs), budget)
            except (BlobCorrupt, BlobMissing) as error:
                if not left:
                    raise
                note(f"{error.what}; it will be rebuilt.")
            except ExtractionRefused as error:
                if was_refused:
                    raise
                was_refused = True
                note(f"{error.what}; it will be rebuilt. {error.why}")
                forget(cache, record)
            del self._resolver.outcomes[self.bundle]
            self.resolve()
        raise StoreError("Cannot extract the bundle")
