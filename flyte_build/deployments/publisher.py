"""Publishing and removing releases: what is put where and in which order, so that no tag names what
is not all there.

Blobs, manifests (each under a tag that keeps it), the index, the version's tag, the pin's, and
`latest`. Only indexes are ever deleted: a manifest's deletion takes all of its tags along, and
other indexes may name it. What nothing names any more is the registry's to collect.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from flyte_build.bundler.identity import bundle_key
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.published_record import read_record
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.tags import keep_tag, pin_tag, record_tag
from flyte_build.cas.registry.transfer import Progress, Transfer, missing
from flyte_build.errors import DeploymentError, RegistryCorrupt, RegistryError

from .catalogue import FoundRelease
from .release import Release

_LOOKS = 5  # How often a tag may be found moved before that is an error.


class Publisher:
    """Publishes to, and removes from, one repository; what is published is in the cache."""

    def __init__(
        self, repository: Repository, cache: Cache, progress: Progress = lambda done, total: None
    ) -> None:
        self.repository = repository
        self._ledger = Ledger(cache.database)
        self._transfer = Transfer(cache.blobs, self._ledger, progress)
        self._complete: set[Digest] = set()

    def existing(self, release: Release) -> FoundRelease | None:
        """What the repository has under a release's version; None also if it is the same
        deployment's under another one.

        Raises `DeploymentError` if somebody has moved the tag to something else.
        """
        index = self.repository.manifest(release.tag)
        found = Release.parse(index) if index else None
        if (
            index is None
            or found is None
            or (found.tag != release.tag and found.pin == release.pin)
        ):
            return None
        if found.tag != release.tag:
            raise DeploymentError(
                f"The tag {release.tag} leads to {found.tag}",
                why="It was moved, and not by flyte.",
                hint="Move it back or delete it, or deploy under another --version.",
            )
        return FoundRelease(found, index, self.repository)

    def publish(self, release: Release, manifests: Sequence[Manifest]) -> bool:
        """Publish a release, of which `manifests` are all that make it up; it is all there then.

        Gives whether it is new: somebody else may have deployed the same in the same moment. Raises
        `DeploymentError` if they have deployed something else under its version.
        """
        repository = self.repository
        with repository.writing():
            self.complete(manifests)
            with repository.exclusive():
                latest, kept = _sound(repository, release.latest), self._same(release)
                is_new = kept is None
                if kept is None:
                    repository.put_manifest(release.index(), release.tag)
                    self._refuse_overwriting(release, latest)
                    kept = self._same(release)
                if kept is not None:
                    self._lead_to(kept)
        for _ in range(_LOOKS):  # On a registry nobody can hold a tag.
            if kept is None or (now := self.existing(release)) is None:
                raise DeploymentError(
                    f"{release.tag} was deleted by someone else in the same moment",
                    hint="Deploy again.",
                )
            if now.release.pin != release.pin:
                if self._is_latest(kept):
                    repository.put_manifest(now.index, release.latest)
                raise _taken(now.release)
            if now.index.digest == kept.index.digest:
                if (
                    repository.manifest(release.pin) is None
                    or repository.manifest(kept.index.digest) is None
                ):
                    raise DeploymentError(
                        f"{repository.name} does not give back what was put there",
                        hint="Run the command again.",
                    )
                return is_new
            kept, is_new = now, False
            self._lead_to(kept)
        raise DeploymentError(
            f"{release.tag} in {repository.name} is another one at each look",
            why="Somebody moves it all the time, or the registry does not keep what is put there.",
            hint="Deploy under another --version.",
        )

    def _same(self, release: Release) -> FoundRelease | None:
        """What is under a release's version. Raises `DeploymentError` if it is another
        deployment.
        """
        found = self.existing(release)
        if found is not None and found.release.pin != release.pin:
            raise _taken(found.release)
        return found

    def _refuse_overwriting(self, release: Release, before: Manifest | None) -> None:
        """Raise `DeploymentError` if another deployment was put under the version between the look
        at it and the release's own PUT.

        The other is put back. `latest` tells: who deploys moves it after the version's tag;
        `before` is what it was.
        """
        latest = _sound(self.repository, release.latest)
        if latest is None or (before is not None and latest.digest == before.digest):
            return
        other = Release.parse(latest)
        if other.tag == release.tag and other.pin != release.pin:
            self.repository.put_manifest(latest, release.tag)
            raise _taken(other)

    def _lead_to(self, found: FoundRelease) -> None:
        """Make sure that the tags are there that keep a release, and that lead to it by its pin and
        as the latest.
        """
        self._keep(found.release)
        self._pin(found)
        if not self._is_latest(found):
            self.repository.put_manifest(found.index, found.release.latest)

    def _keep(self, release: Release) -> None:
        """Put the tags that keep a release's manifests where they are missing, or name something
        else.
        """
        for each in release.pinned:
            if not self._is_kept(each.digest) and (
                manifest := self.repository.manifest(each.digest)
            ):
                self.repository.put_manifest(manifest, keep_tag(each.digest))

    def _is_kept(self, manifest: Digest) -> bool:
        tagged = _sound(self.repository, keep_tag(manifest))
        return tagged is not None and tagged.digest == manifest

    def _pin(self, found: FoundRelease) -> bool:
        """Put the tag of a release's pin if it is missing, or names something else; gives whether
        it was so.
        """
        tag = pin_tag(found.release.pin)
        try:
            pinned = self.repository.manifest(tag)
            if pinned is not None and Release.parse(pinned).pin == found.release.pin:
                return False
        except RegistryCorrupt:
            pass
        self.repository.put_manifest(found.index, tag)
        return True

    def _is_latest(self, found: FoundRelease) -> bool:
        latest = _sound(self.repository, found.release.latest)
        return latest is not None and latest.digest == found.index.digest

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
            f"{self.repository.name} does not keep what is put there",
            why=f"It has no {lost[0]}.",
            hint="Is its disk full?",
        )

    def refresh(self, found: FoundRelease, manifests: Sequence[Manifest]) -> bool:
        """Make sure that a release that is there is whole, with all of its tags, and the latest;
        gives whether it was not the latest.
        """
        repository, release = self.repository, found.release
        wanted = [manifest for manifest in manifests if manifest.digest not in self._complete]
        blobs = {blob.digest: blob for manifest in wanted for blob in manifest.blobs()}
        with repository.writing():
            is_mended = not all(self._is_kept(each.digest) for each in wanted) or bool(
                missing(blobs.values(), repository)
            )
            if is_mended:
                self._ledger.forget(repository.name)
                self.complete(wanted)
            self._complete.update(manifest.digest for manifest in wanted)
            with repository.exclusive():
                is_mended |= self._pin(found)
                was_latest = self._is_latest(found)
                if not was_latest:
                    repository.put_manifest(found.index, release.latest)
                # It was deleted meanwhile.
                if (is_mended or not was_latest) and self._same(release) is None:
                    repository.put_manifest(found.index, release.tag)
        return not was_latest

    def remove(
        self,
        is_meant: Callable[[FoundRelease], bool],
        list_releases: Callable[[], list[FoundRelease]],
    ) -> list[FoundRelease]:
        """Remove those of the repository's releases that are meant, and give them. Raises
        `RegistryRefused` where that may not be.

        Tags that name what shall go are moved first: to another release that needs what they stand
        for, or to the index that is deleted, whose deletion takes them along. `list_releases` gives
        what there is, newest first: it is called as late as possible, and again afterwards, since
        somebody may have deployed meanwhile what needs such a tag.
        """
        with self.repository.writing(), self.repository.exclusive():
            everything = list_releases()
            gone = [each for each in everything if is_meant(each)]
            staying = [each for each in everything if not is_meant(each)]
            needed = {each.digest for found in staying for each in found.release.pinned}
            for found in gone:
                self._remove(found, list(self._moves(found, staying, needed)))
        if gone:
            self._put_back(
                {each.release.latest for each in gone if each.is_latest},
                {each.index.digest for each in everything},
                list_releases(),
            )
        return gone

    def _remove(self, found: FoundRelease, moves: Sequence[tuple[str, Manifest, Manifest]]) -> None:
        try:
            for tag, _, after in moves:
                self.repository.put_manifest(after, tag)
            self.repository.delete_manifest(found.index.digest)
        except RegistryError:
            for tag, before, _ in moves:
                self.repository.put_manifest(before, tag)
            raise

    def _put_back(
        self, moved: set[str], known: Container[Digest], now: Iterable[FoundRelease]
    ) -> None:
        """Put back the tags of the releases of `now`, newest first, that were not known when tags
        were moved; `moved`: of the latest.
        """
        for found in now:
            if found.index.digest not in known:
                self._keep(found.release)
                self._pin(found)
                if found.release.latest in moved:
                    self.repository.put_manifest(found.index, found.release.latest)
            moved = moved - {found.release.latest}

    def _moves(
        self, found: FoundRelease, staying: Sequence[FoundRelease], needed: Container[Digest]
    ) -> Iterator[tuple[str, Manifest, Manifest]]:
        """The tags to move when a release goes, each with what it names now and then."""
        release, index = found.release, found.index
        recorded = read_record(self.repository, record_tag(bundle_key(Digest.parse(release.tree))))
        for each in release.pinned:
            # Runs find it by its record.
            is_cached = recorded is not None and recorded.artifact.digest == each.digest
            if (
                each.digest not in needed
                and not is_cached
                and (manifest := self.repository.manifest(each.digest))
            ):
                yield keep_tag(each.digest), manifest, index
        if heir := next((each for each in staying if each.release.pin == release.pin), None):
            yield pin_tag(release.pin), index, heir.index
        newest = next((each for each in staying if each.release.latest == release.latest), None)
        if found.is_latest and newest:
            yield release.latest, index, newest.index


def lacking(manifests: Iterable[Manifest], repository: Repository) -> list[Digest]:
    """What a repository does not have of some manifests and their blobs."""
    found = list(manifests)
    lost = [manifest.digest for manifest in found if repository.manifest(manifest.digest) is None]
    blobs = {blob.digest: blob for manifest in found for blob in manifest.blobs()}
    return lost + [blob.digest for blob in missing(blobs.values(), repository)]


def _sound(repository: Repository, reference: Digest | str) -> Manifest | None:
    """A manifest, or None also for one that is corrupt: it is to be put anew."""
    try:
        return repository.manifest(reference)
    except RegistryCorrupt:
        return None


def _taken(other: Release) -> DeploymentError:
    return DeploymentError(
        f"{other.tag} was deployed by someone else in the same moment",
        why=f"It is {other.pin} now.",
        hint="Deploy under another --version, or under none: then it is the content's own digest.",
    )
