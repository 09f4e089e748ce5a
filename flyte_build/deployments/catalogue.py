"""The catalogue: what is deployed, found in repositories by version, latest or pin, and kept on this machine once it was used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import key
from flyte_build.cas.records import Record
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.transfer import Progress, Transfer
from flyte_build.errors import BlobCorrupt, BlobMissing, NotFound, RegistryCorrupt, RegistryError

from .document import TYPE, Document
from .naming import LATEST, Reference, Space, pin_tag, read_tag
from .release import Release

if TYPE_CHECKING:
    from flyte_build.bundler.bundle import Bundle
    from flyte_build.bundler.tree import Tree

_PARALLEL = 8
_SHOWN = 5


@dataclass(frozen=True)
class Found:
    """A release, its index, and the repository where it was found; None: on this machine, by its pin."""

    release: Release
    index: Manifest
    repository: Repository | None
    is_latest: bool = False


class Catalogue:
    """Looks deployments up in some repositories, in order. Whatever a repository raises is raised."""

    def __init__(
        self,
        repositories: Sequence[Repository],
        cache: Cache,
        said: Callable[[str], None],
        progress: Progress = lambda done, total: None,
    ) -> None:
        self.repositories, self._cache, self._said = repositories, cache, said
        self._transfer = Transfer(cache.blobs, Ledger(cache.database), progress)

    def alone(self) -> "Catalogue":
        """The same of the first repository alone."""
        return Catalogue(self.repositories[:1], self._cache, self._said)

    def find(self, space: Space, reference: Reference) -> Found:
        """What a reference names. Raises `NotFound`, which says what there is instead."""
        if reference.pin:
            return self._pinned(reference, reference.pin)
        tag = space.tag(reference.environment, reference.version or LATEST)
        for repository in self.repositories:
            index = repository.manifest(tag)
            if index is not None:
                release = Release.parse(index)
                if (release.space, release.environment) != (space, reference.environment) or reference.version not in ("", release.version):
                    raise RegistryCorrupt(f"{repository.name} has another deployment under the tag {tag}", why=f"It is {release.tag}.")
                return Found(release, index, repository)
        raise self.missing(space, reference)

    def _pinned(self, reference: Reference, pin: Digest) -> Found:
        found = self._kept(pin) or self._published(pin)
        if found is None:
            raise NotFound(
                f"There is no deployment {pin}",
                why=f"Neither this machine nor {self._places()} has it.",
                hint="`flyte get deployment` lists what is deployed, with digests.",
            )
        if reference.environment != found.release.environment:
            raise NotFound(
                f"{pin} is no deployment of {reference.environment}",
                why=f"It is one of {found.release.environment}.",
                hint="Leave the name or the digest out, or mend one of them.",
            )
        return found

    def _published(self, pin: Digest) -> Found | None:
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
                return Found(release, index, repository)
        copied = self.releases(lambda space, environment, version: True)  # Who copies a version elsewhere may leave the pin's tag behind.
        return next((each for each in copied if each.release.pin == pin), None)

    def _kept(self, pin: Digest) -> Found | None:
        """What this machine knows of a pin, if it has the deployment."""
        record = self._cache.records.find(_key(pin))
        if record is None or not all(map(self._cache.blobs.has, record.refs)):
            return None
        try:
            index = Manifest.parse(self._cache.blobs.read(record.refs[-1]))
            return Found(Release.parse(index), index, None)
        except (BlobCorrupt, BlobMissing):
            return None

    def document(self, found: Found) -> Document:
        """The document of what was found, verified against its pin; it stays on this machine. Raises `RegistryCorrupt`."""
        pin, blobs = found.release.pin, self._cache.blobs
        manifest = self._fetch(pin, found.repository) if found.repository else Manifest.parse(blobs.read(pin))
        if manifest.artifact_type != TYPE or len(manifest.layers) != 1:
            raise RegistryCorrupt(f"{pin} is no deployment", why="It is of another kind, or has not the one layer that one has.")
        document = Document.parse(blobs.read(manifest.layers[0].digest))
        if document.pin != pin or document.name != found.release.environment or document.tree != found.release.tree:
            raise RegistryCorrupt(f"The deployment {pin} is not what its index says", hint="Do not use it; deploy again.")
        refs = (pin, *(blob.digest for blob in manifest.blobs()), blobs.put(found.index.data))
        self._cache.records.add(Record(_key(pin), "deployment", pin, refs, {"pin": pin, "name": found.release.tag}))
        return document

    def _fetch(self, digest: Digest, repository: Repository) -> Manifest:
        try:
            return self._transfer.pull(digest, repository)
        except BlobMissing as error:
            raise RegistryCorrupt(
                f"{repository.name} has lost a part of a deployment", why=f"{error.what}.", hint="`flyte doctor` lists what is missing."
            ) from None

    def bundle(self, found: Found) -> "Bundle":
        """The bundle of what was found; all of it is on this machine then. Raises `RegistryCorrupt`, `ExtractionRefused`."""
        from flyte_build.bundler import bundle

        blobs, tree = self._cache.blobs, Digest.parse(found.release.tree)
        record = self._cache.records.find(_bundle_key(tree))
        if record and all(map(blobs.has, record.refs[:-1])):
            return bundle.read(record.artifact, blobs)
        repository = found.repository
        if repository is None:
            online = self._published(found.release.pin)
            if online is None or online.repository is None:
                raise NotFound(
                    f"The code of {found.release.environment}@{found.release.pin.short} is not there any more",
                    why=f"Neither this machine nor {self._places()} has it.",
                )
            found, repository = online, online.repository
        self._fetch(found.release.bundle.digest, repository)
        fetched = bundle.read(found.release.bundle.digest, blobs)
        if fetched.tree != tree:
            raise RegistryCorrupt(f"The deployment {found.release.pin} has another bundle than its index says")
        refs = (*fetched.blobs(), tree)
        self._cache.records.add(Record(_bundle_key(tree), "bundle", fetched.manifest, refs, {"tree": tree}))
        return fetched

    def tree(self, found: Found) -> "Tree":
        """The files of what was found, by name and digest; their bytes are not fetched."""
        from flyte_build.bundler import bundle

        blobs, record = self._cache.blobs, self._cache.records.find(_bundle_key(Digest.parse(found.release.tree)))
        if record and all(map(blobs.has, record.refs[:3])):
            return bundle.read_tree(bundle.read(record.artifact, blobs), blobs)
        repository, digest = found.repository, found.release.bundle.digest
        manifest = repository.manifest(digest) if repository else None
        if repository is None or manifest is None:
            raise NotFound(f"The files of {found.release.tag} are not known", why=f"{self._places()} does not have its bundle.")
        with blobs.batch() as batch:
            batch.add(manifest.data)
            for blob in (manifest.config, *manifest.layers[:1]):
                if not blobs.has(blob.digest):
                    with batch.writer() as writer:
                        repository.download(blob, writer, lambda count: None)
                        writer.finish(blob.digest)
        return bundle.read_tree(bundle.read(digest, blobs), blobs)

    def releases(self, wanted: Callable[[Space, str, str], bool]) -> list[Found]:
        """The releases whose space, environment and version are wanted, newest first; of one in two repositories the first."""
        found: dict[str, Found] = {}
        latest: set[Digest] = set()
        for repository in self.repositories:
            tags = [tag for tag in repository.tags() if (read := read_tag(tag)) and wanted(*read)]
            for tag, each in zip(tags, self._read_all(repository, tags), strict=True):
                if each is None:
                    continue
                if tag.endswith(f".{LATEST}"):
                    latest.add(each.index.digest)
                else:
                    found.setdefault(tag, each)
        newest = sorted(found.values(), key=lambda each: each.release.created, reverse=True)
        return [Found(each.release, each.index, each.repository, each.index.digest in latest) for each in newest]

    def _read_all(self, repository: Repository, tags: Iterable[str]) -> list[Found | None]:
        def read(tag: str) -> Found | None:
            try:
                index = repository.manifest(tag)
                return Found(Release.parse(index), index, repository) if index else None
            except RegistryCorrupt as error:
                self._said(f"{tag} in {repository.name} is not listed: {error.what}. {error.why}")
                return None

        with ThreadPoolExecutor(_PARALLEL) as pool:
            return list(pool.map(read, tags))

    def missing(self, space: Space, reference: Reference) -> NotFound:
        """The error for what is not there, with the nearest that is."""
        try:
            known = [read for repository in self.repositories for tag in repository.tags() if (read := read_tag(tag))]
        except RegistryError:
            known = []
        environment = reference.environment
        versions = sorted({version for where, name, version in known if (where, name) == (space, environment)} - {LATEST})
        if versions:
            near = get_close_matches(reference.version, versions, _SHOWN, 0.3) or versions[-_SHOWN:]
            return NotFound(
                f"{environment} has no version {reference.version or LATEST!r}",
                why=f"In {space} there are {len(versions):,}; the nearest: {', '.join(near)}.",
                hint=f"`flyte get deployment {environment}` lists them.",
            )
        elsewhere = next((where for where, name, _ in known if name == environment), None)
        if elsewhere:
            return NotFound(
                f"{environment} is not deployed in {space}",
                why=f"It is in {elsewhere}.",
                hint=f"Add --project {elsewhere.project} --domain {elsewhere.domain}.",
            )
        names = sorted({name for where, name, _ in known if where == space})
        near = get_close_matches(environment, names, _SHOWN, 0.5)
        return NotFound(
            f"{environment} is not deployed",
            why=f"{self._places()} {'have' if len(self.repositories) > 1 else 'has'} no environment of that name in {space}.",
            hint=f"Did you mean {' or '.join(near)}?" if near else "`flyte deploy FILE` deploys one; `flyte get deployment` lists them.",
        )

    def _places(self) -> str:
        return " and ".join(str(each.name) for each in self.repositories)


def _key(pin: Digest) -> Key:
    return key("deployment", 1, {"pin": pin})


def _bundle_key(tree: Digest) -> Key:
    """The key under which preparing records the bundle of a tree: what was fetched need not be made."""
    return key("bundle", 1, {"tree": tree})
