"""What is deployed: found, run, compared, checked and removed, without the files that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.errors import NotFound, RegistryCorrupt, RegistryError, RegistryRefused, RegistryUnreachable

from .cas.registry import open_repository
from .cas.registry.retry_budget import Patience
from .deployedplace import bring
from .deployments import provenance
from .deployments.catalogue import Catalogue, Found, chosen
from .deployments.difference import Change, changes, of_distributions
from .deployments.document import Document
from .deployments.names import Reference, Space
from .graph.reporter import Listener
from .runner.call import Call
from .runner.controller.controller import Finished
from .running import run_in_container, run_in_worker, runtime_held
from .settings.settings import Settings
from .stores import Stores
from .text.wording import listed, printable
from .workspace.workspace import Project

if TYPE_CHECKING:
    from .deployments.health import Checked
    from .runner.worker.spawn import Worker


class Deployments:
    """What is deployed in the repositories of some settings, in a project's domain."""

    def __init__(self, settings: Settings, stores: Stores, listener: Listener) -> None:
        self._stores, self._listener = stores, listener
        self._patience = Patience()
        self._names = settings.registries.of_deployments(stores.places)
        self._here = "" if settings.registries.home else self._names[0].folder
        self.space = Space(settings.run.project, settings.run.domain)

    def open(self, name: RepositoryName) -> Repository:
        """A repository, with the command's counters and patience."""
        return open_repository(name, self._stores.counters, self._patience)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Where they are looked up; the first repository is where new ones go."""
        repositories = [self.open(name) for name in self._names]
        return Catalogue(repositories, self._stores.cache, self._listener.said, self._listener.transferred, self._here)

    def releases(self, environment: str | None = None) -> list[Found]:
        """The releases of an environment, or of all in the project's domain, newest first."""
        return self.catalogue.releases(lambda space, name, version: space == self.space and environment in (None, name))

    def find(self, reference: Reference) -> tuple[Found, Document]:
        """What a reference names, and its document. Raises `NotFound`."""
        found = self.catalogue.find(self.space, reference)
        with self._stores.cache.preparing():
            return found, self.catalogue.document(found)

    def task(self, text: str) -> "DeployedTask":
        """The deployed task that `ENV.TASK[:VERSION|@sha256:...]` names. Raises `NotFound`, `ReferenceInvalid`."""
        reference, function = Reference.parse_task(text)
        try:
            found, document = self.find(reference)
        except RegistryUnreachable as error:
            hint = "What has run here before needs no registry by its pin: ENV.TASK@sha256:..."
            raise RegistryUnreachable(error.what, why=error.why, hint=error.hint or hint) from None
        if function not in document.tasks:
            from difflib import get_close_matches

            near = get_close_matches(function, document.tasks, 1)
            raise NotFound(
                f"{found.release.environment}:{found.release.version} has no task {function!r}",
                why=f"It has {listed(map(printable, sorted(document.tasks)))}.",
                hint=f"Did you mean {document.name}.{printable(near[0])}?" if near else "",
            )
        return DeployedTask(self, found, document, function)

    def difference(self, old: Reference, new: Reference) -> "Difference":
        """How two deployments differ."""
        (before, one), (after, other) = self.find(old), self.find(new)
        files: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
        if one.tree != other.tree:
            with self._stores.cache.preparing():
                files = self.catalogue.tree(after).difference(self.catalogue.tree(before))
        packages = of_distributions(before.release.host, after.release.host)
        return Difference(before, after, [*changes(one, other), *packages], files)

    def run(self, task: "DeployedTask", inputs: Mapping[str, Any], settings: Settings, spare: "Worker | None" = None) -> Finished:
        """Run a deployed task with wire inputs. Nothing is prepared: what is not on this machine yet is fetched."""
        from time import monotonic

        from flyte_build.bundler.budget import Budget

        began, cache, document = monotonic(), self._stores.cache, task.document
        with cache.preparing():
            code = self.catalogue.code(task.found, settings.budget or Budget())
            call = task.call(inputs, settings, code)
            call, container, held = bring(call, settings.engine, task.found, document, self.catalogue, self._stores, self._listener)
            lease = cache.lease([document.tree, *held, *runtime_held(self._stores, document.kind != "host")])
        try:
            if document.kind == "host" and (
                phrases := provenance.interpreter_differences(task.found.release.host, provenance.interpreter())
            ):
                self._listener.said(f"{task.name} was deployed from another interpreter than this one: {', '.join(phrases)}.")
            if container:
                return run_in_container(call, self._stores, self._listener, container, settings.network, began)
            return run_in_worker(call, self._stores, self._listener, spare, began)
        finally:
            lease.release()

    def delete(self, reference: Reference) -> list[Found]:
        """Remove a version, or all versions of an environment; gives what is gone.

        `latest` is the version that it names now. Raises `NotFound`, and `RegistryRefused` where nothing may be deleted.
        """
        from flyte_build.cas.registry.layout import LayoutRepository

        from .deployments.publisher import Publisher

        catalogue = self.catalogue.alone()
        if reference.version:
            reference = replace(reference, version=catalogue.find(self.space, reference).release.version)
        elif not any(self._is_meant(each, reference) for each in self._all(catalogue, reference.environment)):
            raise catalogue.missing(self.space, reference)
        repository = catalogue.repositories[0]
        try:
            publisher = Publisher(repository, self._stores.cache)
            gone = publisher.remove(lambda each: self._is_meant(each, reference), lambda: self._all(catalogue))
        except RegistryRefused as error:
            raise RegistryRefused(
                f"{repository.name} does not allow that something is deleted",
                why=error.why,
                hint="Ask who runs it: deleting is switched off in many registries (in Distribution: storage.delete.enabled).",
            ) from None
        if not gone:  # Somebody else was first.
            raise catalogue.missing(self.space, reference)
        if isinstance(repository, LayoutRepository):  # In a folder there is nobody else to collect what nothing leads to.
            for _ in repository.sweep((), dry_run=False):
                pass
        return gone

    def _all(self, catalogue: Catalogue, environment: str | None = None) -> list[Found]:
        """All releases, or those of an environment here, but for what is lost or corrupt. Raises `RegistryError` if one cannot be read."""
        entries = catalogue.entries(lambda space, name, version: environment is None or (space, name) == (self.space, environment))
        for each in entries:
            if isinstance(each.outcome, RegistryError) and not isinstance(each.outcome, RegistryCorrupt):
                raise each.outcome
        return chosen(entries)

    def _is_meant(self, found: Found, reference: Reference) -> bool:
        release = found.release
        if (release.space, release.environment) != (self.space, reference.environment):
            return False
        return reference.pin == release.pin if reference.pin else reference.version in ("", release.version)

    def check(self) -> "Iterator[Checked]":
        """How each version is that is deployed in the repositories, in whatever project; the cache is held meanwhile."""
        from .deployments.health import Checker

        with self._stores.cache.preparing():
            yield from Checker(self.catalogue, self.open).check()


@dataclass(frozen=True)
class DeployedTask:
    """A task of a deployment that was found; `changes` are the fields of its spec that shall be others."""

    deployments: Deployments
    found: Found
    document: Document
    function: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its full name and its version."""
        return f"{self.document.name}.{self.function}:{self.found.release.version}"

    def run(self, inputs: Mapping[str, Any], settings: Settings) -> Finished:
        """Run it with wire inputs."""
        return self.deployments.run(self, inputs, settings)

    def call(self, inputs: Mapping[str, Any], settings: Settings, code: str) -> Call:
        """The call that runs it from extracted `code`."""
        spec, told = {**self.document.spec(self.function), **self.changes}, self.document.value["code"]
        return Call(
            task=spec,
            project=Project("", told["file"], spec["module"], tuple(told["roots"]), tuple(told["last"])),
            variable=spec["variable"],
            inputs=inputs,
            run=replace(settings.run, version=self.found.release.version),
            code=code,
            tree=self.document.tree,
            deployment=f"{self.document.name}.{self.function}@{self.document.pin}",
        )


@dataclass(frozen=True)
class Difference:
    """Two releases, the fields that differ, and the paths of files that were `added`, `removed` and `changed`."""

    old: Found
    new: Found
    changes: Sequence[Change]
    files: Mapping[str, Sequence[str]]
