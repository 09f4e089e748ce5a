"""The catalogue: what is deployed, found in repositories by version, latest or pin, and kept on
this machine once it was used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from flyte_build.bundler.identity import KIND, blobs_of, bundle_key
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import key
from flyte_build.cas.records import Record
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.tags import pin_tag
from flyte_build.cas.registry.transfer import Progress, Transfer
from flyte_build.cas.verify import forget
from flyte_build.errors import (
    BlobCorrupt,
    BlobMissing,
    ExtractionRefused,
    FlyteError,
    NotFound,
    RegistryCorrupt,
    RegistryError,
    RegistryUnreachable,
)
from flyte_build.images.oci_image import OciImage

from .absence import absence
from .document import TYPE, Document
from .names import LATEST, DeploymentReference, Namespace, read_tag
from .release import Release

if TYPE_CHECKING:
    from flyte_build.bundler.budget import Budget
    from flyte_build.bundler.tree import Tree

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
    """Looks deployments up in some repositories, in order; `here` is the folder among them that is
    called this machine.

    Whatever a repository raises is raised.
    """

    def __init__(
        self,
        repositories: Sequence[Repository],
        cache: Cache,
        said: Callable[[str], None],
        progress: Progress = lambda done, total: None,
        here: str = "",
    ) -> None:
        self.repositories, self._cache, self._said, self._here = repositories, cache, said, here
        self._transfer = Transfer(cache.blobs, Ledger(cache.database), progress)

    def alone(self) -> Catalogue:
        """The same of the first repository alone."""
        return Catalogue(self.repositories[:1], self._cache, self._said, here=self._here)

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
        found = self._kept(pin) or self._published(pin)
        if found is None:
            raise NotFound(
                f"There is no deployment {pin}",
                why=self._nowhere(),
                hint="`flyte get deployment` lists what is deployed, with digests.",
            )
        if reference.environment != found.release.environment:
            raise NotFound(
                f"{pin} is no deployment of {reference.environment}",
                why=f"It is one of {found.release.environment}.",
                hint="Leave the name or the digest out, or mend one of them.",
            )
        return found

    def _published(self, pin: Digest) -> FoundRelease | None:
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
        record = self._cache.records.find(_key(pin))
        if record is None or not all(map(self._cache.blobs.has, record.refs)):
            return None
        *_, kept = record.refs  # As `document` writes them.
        try:
            index = Manifest.parse(self._cache.blobs.read(kept))
            return FoundRelease(Release.parse(index), index, None)
        except (BlobCorrupt, BlobMissing):
            return None

    def document(self, found: FoundRelease) -> Document:
        """The document of what was found, verified against its pin; it stays on this machine.
        Raises `RegistryCorrupt`.
        """
        pin, blobs = found.release.pin, self._cache.blobs
        manifest = (
            self._fetch(pin, found.repository, _DOCUMENT)
            if found.repository
            else Manifest.parse(blobs.read(pin))
        )
        if manifest.artifact_type != TYPE or len(manifest.layers) != 1:
            raise RegistryCorrupt(
                f"{pin} is no deployment",
                why="It is of another kind, or has not the one layer that one has.",
            )
        document = Document.parse(blobs.read(manifest.layers[0].digest))
        if (
            document.pin != pin
            or document.name != found.release.environment
            or document.tree != found.release.tree
        ):
            raise RegistryCorrupt(
                f"The deployment {pin} is not what its index says",
                hint="Do not use it; deploy again.",
            )
        refs = (pin, *(blob.digest for blob in manifest.blobs()), blobs.put(found.index.data))
        self._cache.records.add(
            Record(_key(pin), "deployment", pin, refs, {"pin": pin, "name": found.release.tag})
        )
        return document

    def _fetch(self, digest: Digest, repository: Repository, most: int) -> Manifest:
        try:
            return self._transfer.pull(digest, repository, most=most)
        except BlobMissing as error:
            raise RegistryCorrupt(
                f"{repository.name} has lost a part of a deployment",
                why=f"{error.what}.",
                hint="`flyte doctor` lists what is missing.",
            ) from None

    def code(self, found: FoundRelease, budget: Budget) -> str:
        """Extract the code of what was found, and return its folder; its bundle is fetched unless
        this machine has it.

        Raises `NotFound` if nobody has it, `RegistryCorrupt` and `ExtractionRefused` for what is
        not the code that was deployed.
        """
        from flyte_build.bundler import bundle, extraction
        from flyte_build.bundler.marker import find

        blobs, tree = self._cache.blobs, Digest.parse(found.release.tree)
        if folder := find(self._cache, tree):
            return folder
        record = self._cache.records.find(bundle_key(tree))
        if record and all(map(blobs.has, blobs_of(record))):
            try:
                return extraction.extract(self._cache, bundle.read(record.artifact, blobs), budget)
            except (BlobMissing, BlobCorrupt):
                pass  # It went bad here.
            except ExtractionRefused as error:
                self._said(f"{error.what}; it is fetched again. {error.why}")
                forget(self._cache, record)
        repository = found.repository
        if repository is None:
            online = self._published(found.release.pin)
            if online is None or online.repository is None:
                raise NotFound(
                    f"The code of {found.release.environment}@{found.release.pin.short} is not"
                    " there any more",
                    why=self._nowhere(),
                )
            found, repository = online, online.repository
        self._fetch(found.release.bundle.digest, repository, budget.bytes + _SLACK)
        fetched = bundle.read(found.release.bundle.digest, blobs)
        if fetched.tree != tree:
            raise RegistryCorrupt(
                f"The deployment {found.release.pin} has another bundle than its index says"
            )
        # Only what has proven right is recorded.
        extraction.take(self._cache, fetched, budget=budget)
        refs = (*fetched.blobs(), tree)
        self._cache.records.add(
            Record(bundle_key(tree), KIND, fetched.manifest, refs, {"tree": tree})
        )
        return extraction.extract(self._cache, fetched, budget)

    def image(self, found: FoundRelease, identity: Digest) -> tuple[OciImage, list[Repository]]:
        """The image of what was found whose config has that digest, and the repositories that have
        its layers. Raises `RegistryCorrupt`.

        Its manifest and its config are on this machine then.
        """
        blobs = self._cache.blobs
        if found.repository is None and not all(
            blobs.has(each.digest) for each in found.release.images
        ):
            found = self._published(found.release.pin) or found
        for each in found.release.images:
            manifest = Manifest.parse(blobs.read(each.digest)) if blobs.has(each.digest) else None
            if manifest is None and found.repository is not None:
                manifest = found.repository.manifest(each.digest)
            if manifest is None or manifest.config.digest != identity:
                continue
            if not blobs.has(identity) and found.repository is not None:
                with blobs.batch() as batch, batch.writer() as writer:
                    found.repository.download(manifest.config, writer, lambda count: None)
                    writer.finish(identity)
            blobs.put(manifest.data)
            return OciImage(manifest, blobs.read(identity)), (
                [found.repository] if found.repository else list(self.repositories)
            )
        raise RegistryCorrupt(
            f"The image of {found.release.environment}:{found.release.version} is not there any"
            " more",
            why=f"Its identity is {identity}.",
            hint="`flyte doctor` lists what is missing.",
        )

    def tree(self, found: FoundRelease) -> Tree:
        """The files of what was found, by name and digest; their bytes are not fetched."""
        from flyte_build.bundler import bundle

        blobs, record = (
            self._cache.blobs,
            self._cache.records.find(bundle_key(Digest.parse(found.release.tree))),
        )
        if record:
            try:
                return bundle.read_tree(bundle.read(record.artifact, blobs), blobs)
            except (BlobMissing, BlobCorrupt, ExtractionRefused):
                pass  # It went bad here.
        repository, digest = found.repository, found.release.bundle.digest
        manifest = repository.manifest(digest) if repository else None
        if repository is None or manifest is None:
            where = self.place(repository) if repository else _THIS
            raise NotFound(
                f"The files of {found.release.tag} are not known",
                why=f"The bundle is not in {where}.",
            )
        with blobs.batch() as batch:
            batch.add(manifest.data)
            for blob in (manifest.config, *manifest.layers[:1]):
                if not blobs.has(blob.digest):
                    with batch.writer() as writer:
                        repository.download(blob, writer, lambda count: None)
                        writer.finish(blob.digest)
        return bundle.read_tree(bundle.read(digest, blobs), blobs)

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
            self._said(
                f"{entry.tag} in {self.place(entry.repository)} is not listed: {error.what}."
                f" {error.why}".rstrip()
            )
        if len(unread) > _NOTES:
            self._said(
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

    def place(self, repository: Repository) -> str:
        """How a repository is called in messages."""
        return (
            _THIS
            if repository.name.folder and repository.name.folder == self._here
            else str(repository.name)
        )

    def _nowhere(self) -> str:
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


def _key(pin: Digest) -> Key:
    return key("deployment", 1, {"pin": pin})
