"""The catalogue: what is deployed, found in repositories by version, latest or pin."""

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
_DOCUMENT = 64 << 20  # Bytes of a deployment's document, at most.
_SLACK = 1 << 30  # Bytes by which a bundle may be larger than the files that it holds.


@dataclass(frozen=True)
class FoundRelease:
    """A release, its index, and the repository where it was found; None: on this machine, by its
    pin.
    """

    release: Release
    index: Manifest
    repository: Repository | None
    is_latest: bool = False


@dataclass(frozen=True)
class TaggedRelease:
    """The tag of a version, or `latest`, in a repository: what was found under it, or the error
    that says why nothing was.
    """

    repository: Repository
    tag: str
    outcome: FoundRelease | FlyteError

    @property
    def is_latest(self) -> bool:
        """Whether it is the tag of no version."""
        return self.tag.endswith(f".{LATEST}")


class Catalogue:
    """Looks deployments up in some repositories, in order; `here` is the directory among them that
    is called this machine.

    Whatever a repository raises is raised.
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
        """The same of the first repository alone."""
        return Catalogue(self.repositories[:1], self._cache, self._note, self._here)

    def find(self, space: Namespace, reference: DeploymentReference) -> FoundRelease:
        """What a reference names. Raises `NotFound`, which says what there is instead."""
        if reference.pin:
            return self._pinned(reference, reference.pin)
        tag = space.tag(reference.environment, reference.version or LATEST)
        for repository in self.repositories:
            if (found := self._read(repository, tag)) is not None:
                return found
        raise self.missing(space, reference)

    def _read(self, repository: Repository, tag: str) -> FoundRelease | None:
        """What is under a tag. Raises `RegistryCorrupt` for what does not belong there."""
        index = repository.manifest(tag)
        if index is None:
            return None
        release = Release.parse(index)
        if tag not in (release.tag, release.latest):
            raise RegistryCorrupt(
                f"{self.place(repository)} has another deployment under the tag {tag}",
                why=f"It is {release.tag}: the tag was moved, and not by flyte.",
                hint="Move the tag back, or delete it.",
            )
        return FoundRelease(release, index, repository)

    def _pinned(self, reference: DeploymentReference, pin: Digest) -> FoundRelease:
        found = self._kept(pin) or self.published(pin)
        if found is None:
            raise NotFound(
                f"There is no deployment {pin}",
                why=self.nowhere(),
                hint="`flyte get deployment` lists what is deployed, with digests.",
            )
        if reference.environment != found.release.environment:
            raise NotFound(
                f"{pin} is no deployment of {reference.environment}",
                why=f"It is one of {found.release.environment}.",
                hint="Leave the name or the digest out, or mend one of them.",
            )
        return found

    def published(self, pin: Digest) -> FoundRelease | None:
        """What the repositories have of a pin. Raises `RegistryCorrupt`."""
        for repository in self.repositories:
            index = repository.manifest(pin_tag(pin))
            if index is not None:
                release = Release.parse(index)
                if release.pin != pin:
                    raise RegistryCorrupt(
                        f"{repository.name} has another deployment than {pin} under its pin",
                        why=f"It is {release.pin}.",
                        hint="Do not use what it holds; deploy again.",
                    )
                return FoundRelease(release, index, repository)
        # Who copies a version elsewhere may leave the pin's tag behind.
        copied = self.releases(lambda space, environment, version: True)
        return next((each for each in copied if each.release.pin == pin), None)

    def _kept(self, pin: Digest) -> FoundRelease | None:
        """What this machine knows of a pin, if it has the deployment."""
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
        """The releases whose space, environment and version are wanted, newest first; of one in two
        repositories the first.

        What cannot be read is not among them, and that is said.
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
                f"{len(unread) - _NOTES:,} more are not listed. `flyte doctor` names all of them."
            )
        return chosen(entries)

    def entries(self, wanted: Callable[[Namespace, str, str], bool]) -> list[TaggedRelease]:
        """What is under the tags, in all repositories, whose space, environment and version are
        wanted. One that fails hides no other.

        Raises `RegistryUnreachable` if none of several can be had.
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
            or BlobMissing("Its index is lost", why="The tag is there, and leads to nothing."),
        )

    def missing(self, space: Namespace, reference: DeploymentReference) -> NotFound:
        """The error for what is not there, with the nearest that is."""
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
        """How a repository is called in messages; None: what is kept on this machine."""
        if repository is None or (self._here and repository.name.folder == self._here):
            return _THIS
        return str(repository.name)

    def nowhere(self) -> str:
        """The sentence that what was looked for is in none of the places."""
        others = [place for each in self.repositories if (place := self.place(each)) != _THIS]
        return (
            f"Neither {_THIS} nor {' nor '.join(others)} has it."
            if others
            else "This machine does not have it."
        )


def chosen(entries: Iterable[TaggedRelease]) -> list[FoundRelease]:
    """The releases among some entries, newest first; of one in two repositories the first."""
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
    """The key of what this machine keeps of a deployment."""
    return key("deployment", 1, {"pin": pin})
