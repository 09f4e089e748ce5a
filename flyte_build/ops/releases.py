"""Deployed versions: find, compare, check and delete them, without the source files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from flyte_build.deployments.catalogue import Catalogue, FoundRelease, chosen
from flyte_build.deployments.contents import DeploymentContents
from flyte_build.deployments.difference import FieldChange, changes, of_distributions
from flyte_build.deployments.document import Document
from flyte_build.deployments.names import DeploymentReference, Namespace
from flyte_build.errors import RegistryCorrupt, RegistryError, RegistryRefused

from .session import Session

if TYPE_CHECKING:
    from flyte_build.deployments.health import Checked


class Deployments:
    """Deployments in the repositories of a session, in the domain of its project."""

    def __init__(self, session: Session) -> None:
        self.session, self.stores = session, session.stores
        settings = session.settings
        self._names = settings.registries.of_deployments(self.stores.places)
        self._here = "" if settings.registries.home else self._names[0].folder
        self.space = Namespace(settings.run.project, settings.run.domain)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Catalogue of the deployments; new ones are published to its first repository."""
        repositories = [self.stores.repositories.open(name) for name in self._names]
        return Catalogue(repositories, self.stores.cache, self.session.reporter.note, self._here)

    @cached_property
    def contents(self) -> DeploymentContents:
        """Contents of the deployments: their documents, files and images."""
        reporter = self.session.reporter
        return DeploymentContents(
            self.catalogue, self.stores.cache, reporter.note, reporter.bytes_moved
        )

    def releases(self, environment: str | None = None) -> list[FoundRelease]:
        """Return the releases of one environment, or of the whole domain, newest first."""
        return self.catalogue.releases(
            lambda space, name, version: space == self.space and environment in (None, name)
        )

    def find(self, reference: DeploymentReference) -> tuple[FoundRelease, Document]:
        """Find the release that a reference names, and its document. Raises `NotFound`."""
        found = self.catalogue.find(self.space, reference)
        with self.stores.cache.preparing():
            return found, self.contents.document(found)

    def difference(self, old: DeploymentReference, new: DeploymentReference) -> Difference:
        """Compare two deployments. Raises `NotFound`."""
        (before, one), (after, other) = self.find(old), self.find(new)
        files: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
        if one.tree != other.tree:
            with self.stores.cache.preparing():
                files = self.contents.tree(after).difference(self.contents.tree(before))
        packages = of_distributions(before.release.host, after.release.host)
        return Difference(before, after, [*changes(one, other), *packages], files)

    def delete(self, reference: DeploymentReference) -> list[FoundRelease]:
        """Delete a version, or all versions of an environment, and return what was deleted.

        `latest` stands for the version that it currently names. Raises `NotFound`, and
        `RegistryRefused` if the registry does not allow deletion.
        """
        from flyte_build.cas.registry.layout import LayoutRepository
        from flyte_build.deployments.publisher import Publisher

        catalogue = self.catalogue.alone()
        if reference.version:
            reference = replace(
                reference, version=catalogue.find(self.space, reference).release.version
            )
        elif not any(
            self._is_meant(each, reference) for each in self._all(catalogue, reference.environment)
        ):
            raise catalogue.missing(self.space, reference)
        repository = catalogue.repositories[0]
        try:
            publisher = Publisher(repository, self.stores.cache)
            gone = publisher.remove(
                lambda each: self._is_meant(each, reference), lambda: self._all(catalogue)
            )
        except RegistryRefused as error:
            raise RegistryRefused(
                f"{repository.name} does not allow deletion",
                why=error.why,
                hint=(
                    "Ask its administrator to enable it (in Distribution: storage.delete.enabled)."
                    " It is disabled in many registries."
                ),
            ) from None
        if not gone:  # Another process was faster.
            raise catalogue.missing(self.space, reference)
        # A directory has no garbage collector of its own.
        if isinstance(repository, LayoutRepository):
            for _ in repository.sweep((), dry_run=False):
                pass
        return gone

    def _all(self, catalogue: Catalogue, environment: str | None = None) -> list[FoundRelease]:
        """Return all releases, or those of an environment, except lost and corrupt ones.

        Raises `RegistryError` if one of them cannot be read.
        """
        entries = catalogue.entries(
            lambda space, name, version: (
                environment is None or (space, name) == (self.space, environment)
            )
        )
        for each in entries:
            if isinstance(each.outcome, RegistryError) and not isinstance(
                each.outcome, RegistryCorrupt
            ):
                raise each.outcome
        return chosen(entries)

    def _is_meant(self, found: FoundRelease, reference: DeploymentReference) -> bool:
        release = found.release
        if (release.space, release.environment) != (self.space, reference.environment):
            return False
        return (
            reference.pin == release.pin
            if reference.pin
            else reference.version in ("", release.version)
        )

    def check(self) -> Iterator[Checked]:
        """Check every version that is deployed in the repositories, and yield the results.

        All projects are checked. The cache's shared lock is held until the iterator is exhausted.
        """
        from flyte_build.deployments.health import Checker

        with self.stores.cache.preparing():
            yield from Checker(self.catalogue, self.contents, self.stores.repositories.open).check()


@dataclass(frozen=True)
class Difference:
    """Difference of two releases: the changed fields, and the paths of files.

    The keys of `files` are `added`, `removed` and `changed`.
    """

    old: FoundRelease
    new: FoundRelease
    changes: Sequence[FieldChange]
    files: Mapping[str, Sequence[str]]
