"""Publication and removal of releases, in an order in which no tag ever leads to missing parts.

Uploads are ordered: blobs, manifests (each with a tag that keeps it), the index with the version's
tag, the pin's tag, and `latest`. Only indexes are ever deleted: deleting a manifest deletes all of
its tags, and other indexes may refer to it. Unreferenced manifests and blobs are left to the
registry's garbage collection.
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

_LOOKS = 5  # Number of times that a tag may be found moved before that is an error.


class Publisher:
    """Publication of releases to one repository, from the cache, and their removal."""

    def __init__(
        self, repository: Repository, cache: Cache, progress: Progress = lambda done, total: None
    ) -> None:
        self.repository = repository
        self._ledger = Ledger(cache.database)
        self._transfer = Transfer(cache.blobs, self._ledger, progress)
        self._complete: set[Digest] = set()

    def existing(self, release: Release) -> FoundRelease | None:
        """Return the repository's release under the version of `release`, or None.

        A release of the same deployment under another version counts as None. Raises
        `DeploymentError` if the tag was moved to another deployment.
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
                why="It was moved, but not by flyte.",
                hint="Move it back or delete it, or deploy under another --version.",
            )
        return FoundRelease(found, index, self.repository)

    def publish(self, release: Release, manifests: Sequence[Manifest]) -> bool:
        """Publish a release completely; `manifests` are all of its manifests.

        Returns whether it is new: another client may have published the same concurrently. Raises
        `DeploymentError` if another deployment was published under its version.
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
        for _ in range(_LOOKS):  # Registries have no locks for tags.
            if kept is None or (now := self.existing(release)) is None:
                raise DeploymentError(
                    f"{release.tag} was deleted by someone else at the same time",
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
                        f"{repository.name} does not return what was published to it",
                        hint="Run the command again.",
                    )
                return is_new
            kept, is_new = now, False
            self._lead_to(kept)
        raise DeploymentError(
            f"The tag {release.tag} in {repository.name} keeps changing",
            why="Another client moves it, or the registry does not keep what is published to it.",
            hint="Deploy under another --version.",
        )

    def _same(self, release: Release) -> FoundRelease | None:
        """Return the repository's release under the version of `release`, if any.

        Raises `DeploymentError` if it is of another deployment.
        """
        found = self.existing(release)
        if found is not None and found.release.pin != release.pin:
            raise _taken(found.release)
        return found

    def _refuse_overwriting(self, release: Release, before: Manifest | None) -> None:
        """Raise `DeploymentError` if our PUT has overwritten a concurrent deployment's tag.

        The other deployment is restored. It is recognized by `latest`, which publishers move after
        the version's tag; `before` is the index that `latest` led to before.
        """
        latest = _sound(self.repository, release.latest)
        if latest is None or (before is not None and latest.digest == before.digest):
            return
        other = Release.parse(latest)
        if other.tag == release.tag and other.pin != release.pin:
            self.repository.put_manifest(latest, release.tag)
            raise _taken(other)

    def _lead_to(self, found: FoundRelease) -> None:
        """Ensure that the tags exist that keep a release, and that its pin and `latest` lead to it.

        Missing tags, and those that lead to something else, are written.
        """
        self._keep(found.release)
        self._pin(found)
        if not self._is_latest(found):
            self.repository.put_manifest(found.index, found.release.latest)

    def _keep(self, release: Release) -> None:
        """Write the tags that keep a release's manifests, unless they are right already."""
        for each in release.pinned:
            if not self._is_kept(each.digest) and (
                manifest := self.repository.manifest(each.digest)
            ):
                self.repository.put_manifest(manifest, keep_tag(each.digest))

    def _is_kept(self, manifest: Digest) -> bool:
        tagged = _sound(self.repository, keep_tag(manifest))
        return tagged is not None and tagged.digest == manifest

    def _pin(self, found: FoundRelease) -> bool:
        """Write the tag of a release's pin if it is missing or wrong; return whether it was."""
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
        """Upload everything that the repository lacks of some manifests.

        Raises `DeploymentError` if the repository does not keep it.
        """
        wanted = [manifest for manifest in manifests if manifest.digest not in self._complete]
        for _ in range(2):
            for manifest in wanted:
                self._transfer.push(manifest, self.repository, keep_tag(manifest.digest))
            if not (lost := lacking(wanted, self.repository)):
                self._complete.update(manifest.digest for manifest in wanted)
                return
            self._ledger.forget(self.repository.name)
        raise DeploymentError(
            f"{self.repository.name} does not keep what is published to it",
            why=f"It does not have {lost[0]}.",
            hint="Check whether its disk is full.",
        )

    def refresh(self, found: FoundRelease, manifests: Sequence[Manifest]) -> bool:
        """Ensure that an existing release is complete, has all its tags, and is the latest.

        Returns whether it was not the latest.
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
                # It was deleted in the meantime.
                if (is_mended or not was_latest) and self._same(release) is None:
                    repository.put_manifest(found.index, release.tag)
        return not was_latest

    def remove(
        self,
        is_meant: Callable[[FoundRelease], bool],
        list_releases: Callable[[], list[FoundRelease]],
    ) -> list[FoundRelease]:
        """Remove those of the repository's releases for which `is_meant` is true, and return them.

        Their tags are moved first: to another release that needs them, or else to the index to
        delete, so that they are deleted with it. `list_releases` returns all releases, newest
        first. It is called as late as possible, and again afterwards, since a concurrent deployment
        may need a tag that was moved. Raises `RegistryRefused` if the registry forbids deletion.
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
        """Restore the tags of releases that were published while tags were moved.

        `now` are all releases, newest first, and `known` the indexes that existed before. `moved`
        are the `latest` tags that were moved.
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
        """Yield the tags to move when a release is removed, with their old and new manifests."""
        release, index = found.release, found.index
        recorded = read_record(self.repository, record_tag(bundle_key(Digest.parse(release.tree))))
        for each in release.pinned:
            # If a record leads to the bundle, runs still use it.
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
    """Return the digests of those manifests and their blobs that a repository lacks."""
    found = list(manifests)
    lost = [manifest.digest for manifest in found if repository.manifest(manifest.digest) is None]
    blobs = {blob.digest: blob for manifest in found for blob in manifest.blobs()}
    return lost + [blob.digest for blob in missing(blobs.values(), repository)]


def _sound(repository: Repository, reference: Digest | str) -> Manifest | None:
    """Return a manifest, or None if it is missing or corrupt, so that it will be written again."""
    try:
        return repository.manifest(reference)
    except RegistryCorrupt:
        return None


def _taken(other: Release) -> DeploymentError:
    return DeploymentError(
        f"{other.tag} was deployed by someone else at the same time",
        why=f"It is {other.pin} now.",
        hint="Use another --version, or omit it: the version is then the digest of the content.",
    )
