"""Checks that deployments are complete: their indexes, manifests, code, images and tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from flyte_build.bundler.bundle import ANNOTATION
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.tags import keep_tag, pin_tag
from flyte_build.errors import (
    FlyteError,
    ReferenceInvalid,
    RegistryCorrupt,
    RegistryError,
    StoreFormatUnknown,
)

from .catalogue import Catalogue, FoundRelease, TaggedRelease
from .contents import DeploymentContents
from .publisher import lacking
from .release import Release


@dataclass(frozen=True)
class Health:
    """Health of a release: its parts that are `lost` or `damaged`, and its missing tags."""

    lost: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    untagged: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """`lost`, `damaged` or `ok`; a release with missing tags is still usable."""
        return "lost" if self.lost else "damaged" if self.damaged else "ok"


@dataclass(frozen=True)
class Checked:
    """A tag of a repository, the pin that it leads to, if any, and the health of that release."""

    place: str
    tag: str
    pin: Digest | None
    health: Health


class Checker:
    """A check of all deployments in a catalogue's repositories.

    `open_repository` opens the repositories of existing images that tasks run in.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        contents: DeploymentContents,
        open_repository: Callable[[RepositoryName], Repository],
    ) -> None:
        self._catalogue, self._contents, self._open = catalogue, contents, open_repository
        self._known: dict[tuple[RepositoryName | Digest, ...], Health] = {}

    def check(self) -> Iterator[Checked]:
        """Yield the result for every version, and for `latest` if it leads to none.

        A failure to check one is its result. Raises only errors of listing the tags.
        """
        entries = self._catalogue.entries(lambda space, name, version: True)
        nowhere = _without_latest(entries)
        for entry in entries:
            place = self._catalogue.place(entry.repository)
            if not isinstance(entry.outcome, FoundRelease):
                yield Checked(place, entry.tag, None, _why(entry.outcome))
            elif not entry.is_latest:
                release, health = (
                    entry.outcome.release,
                    self._health(entry.outcome, entry.repository),
                )
                if entry in nowhere:
                    health = replace(health, untagged=(*health.untagged, release.latest))
                yield Checked(place, entry.tag, release.pin, health)

    def _health(self, found: FoundRelease, repository: Repository) -> Health:
        key: tuple[RepositoryName | Digest, ...] = (
            repository.name,
            *(each.digest for each in found.release.pinned),
        )
        if key not in self._known:
            try:
                self._known[key] = self._looked(found, repository)
            except FlyteError as error:
                self._known[key] = _why(error)
        return self._known[key]

    def _looked(self, found: FoundRelease, repository: Repository) -> Health:
        release = found.release
        digests = [each.digest for each in release.pinned]
        manifests = [repository.manifest(digest) for digest in digests]
        lost = [
            digest for digest, manifest in zip(digests, manifests, strict=True) if manifest is None
        ]
        lost += lacking((manifest for manifest in manifests if manifest), repository)
        if lost:
            return Health(lost=tuple(lost))
        image, code = self._lost_image(found), manifests[1]
        assert code is not None
        if code.annotations.get(ANNOTATION) != release.tree:
            return Health(
                damaged=(
                    f"{code.digest} is not the code that it was deployed with ({release.tree})",
                )
            )
        return Health(lost=tuple(image), untagged=tuple(_untagged(release, repository)))

    def _lost_image(self, found: FoundRelease) -> list[str]:
        """Return the existing image that the tasks run in, in a list, if it is not available.

        Raises `RegistryCorrupt` if the document does not match its index.
        """
        runtime = self._contents.document(found).value["environment"]
        if runtime["kind"] != "reference":
            return []
        image = f"{runtime['uri']}@{runtime['digest']}"
        try:
            there = self._open(RepositoryName.parse(runtime["uri"])).manifest(
                Digest.parse(runtime["digest"])
            )
        except ReferenceInvalid:
            return []  # Its registry is unknown, so it cannot be checked.
        except RegistryError as error:
            return [f"{image} ({error.what})"]
        return [] if there else [image]


def _without_latest(entries: Sequence[TaggedRelease]) -> list[TaggedRelease]:
    """Return the newest version of each environment that has no `latest`."""
    there = {(entry.repository.name, entry.tag) for entry in entries}
    newest: dict[tuple[RepositoryName, str], tuple[str, TaggedRelease]] = {}
    for entry in entries:
        if (
            isinstance(entry.outcome, FoundRelease)
            and (key := (entry.repository.name, entry.outcome.release.latest)) not in there
        ):
            newest[key] = max(
                newest.get(key, ("", entry)),
                (entry.outcome.release.created, entry),
                key=itemgetter(0),
            )
    return [entry for _, entry in newest.values()]


def _untagged(release: Release, repository: Repository) -> Iterator[str]:
    """Yield the tags of a release that are missing, or lead to something else."""
    for digest in (each.digest for each in release.pinned):
        kept = repository.manifest(keep_tag(digest))
        if kept is None or kept.digest != digest:
            yield keep_tag(digest)
    pinned = repository.manifest(pin_tag(release.pin))
    if pinned is None or Release.parse(pinned).pin != release.pin:
        yield pin_tag(release.pin)


def _why(error: FlyteError) -> Health:
    text = " ".join(part for part in (f"{error.what}.", error.why) if part)
    return (
        Health(damaged=(text,))
        if isinstance(error, RegistryCorrupt | StoreFormatUnknown)
        else Health(lost=(text,))
    )
