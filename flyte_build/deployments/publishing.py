"""Publishing and removing releases: what is put where and in which order, so that no tag names what is not all there.

Blobs, manifests (each under a tag that keeps it), the index, the version's tag, the pin's, and `latest`. Only indexes are ever deleted:
a manifest's deletion takes all of its tags along, and other indexes may name it. What nothing names any more is the registry's to collect.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.transfer import Progress, Transfer, missing
from flyte_build.errors import DeploymentError, RegistryError

from .catalogue import Found
from .naming import LATEST, keep_tag, pin_tag
from .release import Release


class Publisher:
    """Publishes to, and removes from, one repository; what is published is in the cache."""

    def __init__(self, repository: Repository, cache: Cache, progress: Progress = lambda done, total: None) -> None:
        self.repository = repository
        self._ledger = Ledger(cache.database)
        self._transfer = Transfer(cache.blobs, self._ledger, progress)
        self._complete: set[Digest] = set()

    def existing(self, tag: str) -> Found | None:
        """What the repository has under the tag of a version."""
        index = self.repository.manifest(tag)
        return Found(Release.parse(index), index, self.repository) if index else None

    def publish(self, release: Release, manifests: Sequence[Manifest]) -> None:
        """Publish a release, of which `manifests` are the deployment's and the bundle's; it is all there then.

        Raises `DeploymentError` if someone else has published another one under its version in the same moment.
        """
        index, repository = release.index(), self.repository
        with repository.writing():
            self.complete(manifests)
            repository.put_manifest(index, release.tag)
            kept = repository.manifest(release.tag)
            if kept is None or Release.parse(kept).pin != release.pin:
                raise DeploymentError(
                    f"{release.tag} was deployed by someone else in the same moment",
                    why=f"It is {Release.parse(kept).pin} now." if kept else "It is gone.",
                    hint="Deploy under another --version.",
                )
            repository.put_manifest(kept, pin_tag(release.pin))
            repository.put_manifest(kept, _latest(release))
        if repository.manifest(release.pin) is None or repository.manifest(kept.digest) is None:
            raise DeploymentError(f"{repository.name} does not give back what was put there", hint="Run the command again.")

    def complete(self, manifests: Iterable[Manifest]) -> None:
        """Put what is missing of some manifests, so that all of it can be had by digest."""
        wanted = [manifest for manifest in manifests if manifest.digest not in self._complete]
        for _ in range(2):
            for manifest in wanted:
                self._transfer.push(manifest, self.repository, keep_tag(manifest.digest))
            if not (lost := lacking(wanted, self.repository)):
                self._complete.update(manifest.digest for manifest in wanted)
                return
            self._ledger.forget(self.repository.name)
        raise DeploymentError(
            f"{self.repository.name} does not keep what is put there", why=f"It has no {lost[0]}.", hint="Is its disk full?"
        )

    def refresh(self, found: Found, manifests: Sequence[Manifest]) -> bool:
        """Make sure that a release that is there is whole, and the latest; gives whether it was not the latest."""
        repository, release = self.repository, found.release
        wanted = [manifest for manifest in manifests if manifest.digest not in self._complete]
        if lacking(wanted, repository):
            self._ledger.forget(repository.name)
            self.complete(wanted)
        self._complete.update(manifest.digest for manifest in wanted)
        latest = repository.manifest(_latest(release))
        if latest is not None and latest.digest == found.index.digest:
            return False
        repository.put_manifest(found.index, _latest(release))
        return True

    def remove(self, gone: Iterable[Found], staying: Sequence[Found]) -> None:
        """Remove releases; `staying` are all others in the repository, newest first. Raises `RegistryRefused` where that may not be.

        Tags that name what shall go are moved first: to another release that needs what they stand for, or to the index that is
        deleted, whose deletion takes them along.
        """
        needed = {each.digest for found in staying for each in (found.release.deployment, found.release.bundle)}
        for found in gone:
            moves = list(self._moves(found, staying, needed))
            with self.repository.writing():
                try:
                    for tag, _, after in moves:
                        self.repository.put_manifest(after, tag)
                    self.repository.delete_manifest(found.index.digest)
                except RegistryError:
                    for tag, before, _ in moves:
                        self.repository.put_manifest(before, tag)
                    raise

    def _moves(self, found: Found, staying: Sequence[Found], needed: Container[Digest]) -> Iterator[tuple[str, Manifest, Manifest]]:
        """The tags to move when a release goes, each with what it names now and then."""
        release, index = found.release, found.index
        for each in (release.deployment, release.bundle):
            if each.digest not in needed and (manifest := self.repository.manifest(each.digest)):
                yield keep_tag(each.digest), manifest, index
        if heir := next((each for each in staying if each.release.pin == release.pin), None):
            yield pin_tag(release.pin), index, heir.index
        newest = next((each for each in staying if _latest(each.release) == _latest(release)), None)
        if found.is_latest and newest:
            yield _latest(release), index, newest.index


def lacking(manifests: Iterable[Manifest], repository: Repository) -> list[Digest]:
    """What a repository does not have of some manifests and their blobs."""
    found = list(manifests)
    lost = [manifest.digest for manifest in found if repository.manifest(manifest.digest) is None]
    blobs = {blob.digest: blob for manifest in found for blob in manifest.blobs()}
    return lost + [blob.digest for blob in missing(blobs.values(), repository)]


def lost_of(found: Found, repository: Repository) -> list[Digest]:
    """What a repository has lost of a release."""
    descriptors: list[Descriptor] = [found.release.deployment, found.release.bundle]
    manifests = [(each.digest, repository.manifest(each.digest)) for each in descriptors]
    lost = [digest for digest, manifest in manifests if manifest is None]
    return lost + lacking((manifest for _, manifest in manifests if manifest), repository)


def _latest(release: Release) -> str:
    return release.space.tag(release.environment, LATEST)
