"""The catalogue: lookup of deployments in repositories by version, `latest` or pin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import key
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.tags import pin_tag
from flyte_build.errors import (
    BlobCorrupt,
    BlobMissing,
    FlyteError,
    NotFound,
    RegistryCorrupt,
    RegistryError,
    RegistryUnreachable,
)

from .absence import absence
from .names import LATEST, DeploymentReference, Namespace, read_tag
from .release import Release

_PARALLEL = 8
_NOTES = 10
_THIS = "this machine"


@dataclass(frozen=True)
class FoundRelease:
    """A release, its index, and its repository; None if it was found on this machine by its pin."""

    release: Release
    index: Manifest
    repository: Repository | None
    is_latest: bool = False


@dataclass(frozen=True)
class TaggedRelease:
    """The tag of a version, or `latest`, in a repository, with its release or the error instead."""

    repository: Repository
    tag: str
    outcome: FoundRelease | FlyteError

    @property
    def is_latest(self) -> bool:
        """Whether the tag is `latest`, rather than that of a version."""
        return self.tag.endswith(f".{LATEST}")


class Catalogue:
    """A lookup of deployments in repositories, in order.

    `here` is the directory of the repository that messages call "this machine". Methods raise any
    error of a repository.
    """

    def __init__(
        self,
        repositories: Sequence[Repository],
        cache: Cache,
        note: Callable[[str], None],
        here: str = "",
    ) -> None:
        self.repositories, self._cache, self._note, self._here = repositories, cache, note, here

    def alone(self) -> Catalogue:
        """Return the catalogue of the first repository only."""
        return Catalogue(self.repositories[:1], self._cache, self._note, self._here)

    def find(self, space: Namespace, reference: DeploymentReference) -> FoundRelease:
        """Find the release of a reference. Raises `NotFound`, which names similar ones."""
        if reference.pin:
            return self._pinned(reference, reference.pin)
        tag = space.tag(reference.environment, reference.version or LATEST)
        for repository in self.repositories:
            if (found := self._read(repository, tag)) is not None:
                return found
        raise self.missing(space, reference)

    def _read(self, repository: Repository, tag: str) -> FoundRelease | None:
        """Return the release under a tag, if any. Raises `RegistryCorrupt` if it is another's."""
        index = repository.manifest(tag)
        if index is None:
            return None
        release = Release.parse(index)
        if tag not in (release.tag, release.latest):
            raise RegistryCorrupt(
                f"The tag {tag} in {self.place(repository)} leads to another deployment",
                why=f"It leads to {release.tag}: it was moved, but not by flyte.",
                hint="Move the tag back, or delete it.",
            )
        return FoundRelease(release, index, repository)

    def _pinned(self, reference: DeploymentReference, pin: Digest) -> FoundRelease:
        found = self._kept(pin) or self.published(pin)
        if found is None:
            raise NotFound(
                f"There is no deployment {pin}",
                why=self.nowhere(),
                hint="List all deployments and their digests with `flyte get deployment`.",
            )
        if reference.environment != found.release.environment:
            raise NotFound(
                f"{pin} is not a deployment of {reference.environment}",
                why=f"It is one of {found.release.environment}.",
                hint="Correct the name or the digest.",
            )
        return found

    def published(self, pin: Digest) -> FoundRelease | None:
        """Find the release with a pin in the repositories. Raises `RegistryCorrupt`."""
        for repository in self.repositories:
            index = repository.manifest(pin_tag(pin))
            if index is not None:
                release = Release.parse(index)
                if release.pin != pin:
                    raise RegistryCorrupt(
                        f"The tag of the pin {pin} in {repository.name} leads to another"
                        " deployment",
                        why=f"It leads to {release.pin}.",
                        hint="Do not use it; deploy again.",
                    )
                return FoundRelease(release, index, repository)
        # A version may have been copied from another repository without the pin's tag.
        copied = self.releases(lambda space, environment, version: True)
        return next((each for each in copied if each.release.pin == pin), None)

    def _kept(self, pin: Digest) -> FoundRelease | None:
        """Return the release with a pin, if this machine has its deployment."""
        record = self._cache.records.find(record_key(pin))
        if record is None or not self._cache.blobs.has_all(record.refs):
            return None
        *_, kept = record.refs  # As `DeploymentContents` writes them.
        try:
            index = Manifest.parse(self._cache.blobs.read(kept))
            return FoundRelease(Release.parse(index), index, None)
        except (BlobCorrupt, BlobMissing):
            return None

    def releases(self, wanted: Callable[[Namespace, str, str], bool]) -> list[FoundRelease]:
        """Return the releases whose space, environment and version are `wanted`, newest first.

        A release in several repositories is taken from the first. Releases that cannot be read are
        left out, with a note.
        """
        entries = self.entries(wanted)
        unread = [
            (each, each.outcome) for each in entries if not isinstance(each.outcome, FoundRelease)
        ]
        for entry, error in unread[:_NOTES]:
            self._note(
                f"{entry.tag} in {self.place(entry.repository)} is not listed: {error.what}."
                f" {error.why}".rstrip()
            )
        if len(unread) > _NOTES:
            self._note(
                f"{len(unread) - _NOTES:,} more are not listed; see all with `flyte doctor`."
            )
        return chosen(entries)

    def entries(self, wanted: Callable[[Namespace, str, str], bool]) -> list[TaggedRelease]:
        """Return the entries of all tags whose space, environment and version are `wanted`.

        A failure to read one is returned as its outcome. Raises `RegistryUnreachable` if there are
        several, and all fail with it.
        """
        found: list[TaggedRelease] = []
        for repository in self.repositories:
            tags = [tag for tag in repository.tags() if (read := read_tag(tag)) and wanted(*read)]
            with ThreadPoolExecutor(_PARALLEL) as pool:
                found += pool.map(partial(self._entry, repository), tags)
        outcomes = [each.outcome for each in found]
        if len(outcomes) > 1 and all(isinstance(each, RegistryUnreachable) for each in outcomes):
            raise next(each for each in outcomes if isinstance(each, RegistryUnreachable))
        return found

    def _entry(self, repository: Repository, tag: str) -> TaggedRelease:
        try:
            found = self._read(repository, tag)
        except RegistryError as error:
            return TaggedRelease(repository, tag, error)
        return TaggedRelease(
            repository,
            tag,
            found
            or BlobMissing("Its index is lost", why="The tag exists, but the index does not."),
        )

    def missing(self, space: Namespace, reference: DeploymentReference) -> NotFound:
        """Return the error for a deployment that does not exist, which names similar ones."""
        try:
            known = [
                read
                for repository in self.repositories
                for tag in repository.tags()
                if (read := read_tag(tag))
            ]
        except RegistryError:
            known = []
        return absence(space, reference, known, " or ".join(map(self.place, self.repositories)))

    def place(self, repository: Repository | None) -> str:
        """Return the name of a repository for messages; None stands for this machine's cache."""
        if repository is None or (self._here and repository.name.folder == self._here):
            return _THIS
        return str(repository.name)

    def nowhere(self) -> str:
        """Return a sentence for messages: that no place has the deployment."""
        others = [place for each in self.repositories if (place := self.place(each)) != _THIS]
        return (
            f"Neither {_THIS} nor {' nor '.join(others)} has it."
            if others
            else "This machine does not have it."
        )


def chosen(entries: Iterable[TaggedRelease]) -> list[FoundRelease]:
    """Return the releases among some entries, newest first.

    A release in several repositories is taken from the first.
    """
    found: dict[str, FoundRelease] = {}
    latest: set[Digest] = set()
    for entry in entries:
        if isinstance(entry.outcome, FoundRelease):
            if entry.is_latest:
                latest.add(entry.outcome.index.digest)
            else:
                found.setdefault(entry.tag, entry.outcome)
    newest = sorted(found.values(), key=lambda each: each.release.created, reverse=True)
    return [replace(each, is_latest=each.index.digest in latest) for each in newest]


def record_key(pin: Digest) -> Key:
    """Return the key of this machine's record of a deployment."""
    return key("deployment", 1, {"pin": pin})
