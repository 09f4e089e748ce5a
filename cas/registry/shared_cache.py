"""The shared cache: artifacts that other machines have published, and publishing to them.

A failing registry costs a command little and fails nothing: lookups are misses then, and records
that were not published are published by a later command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest, Key, is_hex
from flyte_build.cas.encoding import is_key_of
from flyte_build.cas.records import Record
from flyte_build.errors import (
    BlobCorrupt,
    BlobMissing,
    FlyteError,
    RegistryCorrupt,
    RegistryError,
    RegistryUnreachable,
    RepositoryCorrupt,
    StoreError,
)

from .ledger import Ledger
from .manifest import Manifest
from .name import RepositoryName
from .pool import RepositoryPool
from .published_record import (
    PublishedRecord,
    has_artifact,
    published_records,
    read_record,
    record_index,
)
from .repository import Repository
from .tags import keep_tag, record_tag
from .transfer import Progress, Transfer

_MANY = 20  # More keys than this are looked up in the list of all tags.
_PARALLEL = 8
_LARGEST = 16 << 30  # Bytes; a larger artifact is not fetched, but built here.


@dataclass(frozen=True)
class Offer:
    """A record that a repository has for a key."""

    record: PublishedRecord
    repository: Repository

    @property
    def place(self) -> str:
        """Name of the repository."""
        return str(self.repository.name)


@dataclass(frozen=True)
class Shares:
    """Repositories to read from, in order, and the one to publish to, if any, as `project`."""

    reads: Sequence[RepositoryName]
    write: RepositoryName | None
    project: str


class SharedCache:
    """The shared cache in the repositories of `shares`, opened from a command's pool.

    `note` is called once for a repository that fails; it is not contacted again. `progress` is
    called with the moved and the total bytes.
    """

    def __init__(
        self,
        cache: Cache,
        pool: RepositoryPool,
        shares: Shares,
        note: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self._cache, self._project, self._note = cache, shares.project, note
        self._reads = [pool.open(name) for name in shares.reads]
        self._write = pool.open(shares.write) if shares.write else None
        self._ledger = Ledger(cache.database)
        self._transfer = Transfer(cache.blobs, self._ledger, progress)
        self._failed = pool.failed
        self._offers: dict[Key, Offer | None] = {}

    def find(self, key: Key) -> Offer | None:
        """Return the offer of the first repository that has a record for `key`, or None.

        An offer whose artifact is missing does not count.
        """
        offer = self._find(key)
        if offer is None:
            return None
        try:
            return offer if offer.repository.manifest(offer.record.artifact.digest) else None
        except RegistryError as error:
            self._miss(offer.place, key.short, error)
            return None

    def _find(self, key: Key) -> Offer | None:
        if key not in self._offers:
            self._offers[key] = next(
                filter(None, (self._ask(repository, key) for repository in self._reads)), None
            )
        return self._offers[key]

    def _ask(self, repository: Repository, key: Key) -> Offer | None:
        place = str(repository.name)
        if place in self._failed:
            return None
        try:
            found = repository.manifest(record_tag(key))
            self._ledger.come_back([place])
            record = PublishedRecord.parse(found) if found else None
        except RegistryError as error:
            self._miss(place, key.short, error)
            return None
        if record is not None and not (
            record.key == key and is_key_of(key, record.kind, record.inputs)
        ):
            self._note(f"{place} has a record of another key under {key}; it is ignored.")
            return None
        return Offer(record, repository) if record else None

    def catalogue(self) -> Iterator[Offer]:
        """Yield all records of this project in the repositories that are read, each key once.

        Raises `RegistryError`.
        """
        for repository in self._reads:
            for record in published_records(repository):
                if (
                    record.project == self._project
                    and record.key not in self._offers
                    and is_key_of(record.key, record.kind, record.inputs)
                ):
                    self._offers[record.key] = Offer(record, repository)
                    yield Offer(record, repository)

    def tagged(self, tag: str) -> Iterator[tuple[Digest, str]]:
        """Pull the manifests under a tag, and yield each with its repository's name.

        Their configs are pulled, too, but not their layers.
        """
        for repository in self._reads:
            place = str(repository.name)
            try:
                found = repository.manifest(tag) if place not in self._failed else None
                if found and not found.is_index:
                    self._transfer.pull(found.digest, repository, whole=False)
                    yield found.digest, place
            except BlobMissing:
                continue
            except RegistryError as error:
                self._miss(place, tag, error)

    def fetch(
        self, key: Key, accept: Callable[[Digest], tuple[Digest, ...]], whole: bool = True
    ) -> tuple[Record, str] | None:
        """Fetch the artifact of a key, and record it; return the record and the repository's name.

        Unless `whole`, the layers are not fetched: the manifest and its config are all that is
        needed then. `accept` checks the artifact, whose blobs are here by then, and returns the
        digests that must be kept for it; it raises a `FlyteError` if the artifact does not match
        the key.
        """
        offer = self._find(key)
        if offer is None:
            return None
        found = offer.record
        try:
            self._transfer.pull(found.artifact.digest, offer.repository, whole, _LARGEST)
            refs = accept(found.artifact.digest)
        except (BlobMissing, BlobCorrupt):
            # It was collected there, or is corrupt here; it will be rebuilt and published again.
            return None
        except StoreError:
            raise
        except FlyteError as error:
            self._miss(offer.place, key.short, error)
            return None
        record = Record(key, found.kind, found.artifact.digest, refs, found.inputs)
        self._cache.records.add(record)
        if self._write is not None:
            is_own = self._write.name == offer.repository.name
            self._ledger.settle(self._write.name, key, found.published if is_own else None)
        return record, offer.place

    def restore(self, record: Record) -> str:
        """Fetch the missing blobs of a record, and return the repository's name.

        Returns "" if no repository has exactly that artifact.
        """
        for repository in self._reads:
            offer = self._ask(repository, record.key)
            if offer and offer.record.artifact.digest == record.artifact:
                try:
                    self._transfer.pull(record.artifact, repository)
                    return offer.place
                except BlobMissing:
                    continue
                except RegistryError as error:
                    self._miss(offer.place, record.key.short, error)
        return ""

    def lacking(self, artifacts: Mapping[Key, Digest | None], anywhere: bool) -> set[Key]:
        """Return the keys whose artifact is missing from the repository that is written to.

        With `anywhere`, keys are left out if any repository that is read has their artifact. The
        artifacts are given where they are known here. Raises `RegistryError` if the repository that
        is written to fails.
        """
        write = self._write
        if write is None:
            return set()
        try:
            absent = self._absent(write, artifacts)
        except RegistryUnreachable:
            self._ledger.leave(str(write.name))
            raise
        self._ledger.come_back([str(write.name)])
        for repository in self._reads if anywhere else ():
            if repository.name != write.name and str(repository.name) not in self._failed:
                try:
                    absent = self._absent(repository, {key: artifacts[key] for key in absent})
                except RegistryError as error:
                    self._fail(str(repository.name), error)
        return absent

    def _absent(self, repository: Repository, artifacts: Mapping[Key, Digest | None]) -> set[Key]:
        """Return the keys whose artifact is missing from a repository.

        If there are many, the list of tags decides as far as it can.
        """
        asked = set(artifacts)
        if len(asked) > _MANY:
            tags = set(repository.tags())
            asked = {
                key
                for key, artifact in artifacts.items()
                if not artifact or not {record_tag(key), keep_tag(artifact)} <= tags
            }
            unknown = {key for key in asked if record_tag(key) not in tags}
            return unknown | self._without_artifact(repository, asked - unknown)
        return self._without_artifact(repository, asked)

    def _without_artifact(self, repository: Repository, keys: Iterable[Key]) -> set[Key]:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            asked = list(keys)
            return {
                key
                for key, there in zip(
                    asked, pool.map(lambda key: has_artifact(repository, key), asked), strict=True
                )
                if not there
            }

    def published(self, start: str) -> list[PublishedRecord]:
        """Return the published records whose keys begin with `start`.

        Only the repository that is written to counts. Raises `RegistryError`.
        """
        if self._write is None:
            return []
        wanted = record_tag(Key(start))
        tags = (
            [wanted]
            if is_hex(start.removeprefix("sha256:"))
            else [tag for tag in self._write.tags() if tag.startswith(wanted)]
        )
        return [record for tag in tags if (record := read_record(self._write, tag))]

    def remove(self, record: PublishedRecord) -> None:
        """Delete a record that `published` returned. Raises `RegistryError`."""
        from .remote_gc import delete_record

        assert self._write is not None
        delete_record(self._write, record)
        self._ledger.drop(self._write.name, record.key)

    def publish(self, keys: Iterable[Key]) -> list[Record]:
        """Publish the records of the `keys` that are owed, and return those that were published.

        Failures are noted, and stay owed.
        """
        published: list[Record] = []
        if self._write is None or str(self._write.name) in self._failed:
            return published
        for key in keys:
            record = self._cache.records.find(key)
            if record is None or not self._cache.blobs.has(record.artifact):
                self._ledger.drop(self._write.name, key)
                continue
            try:
                self._publish(record, self._write)
                published.append(record)
                self._ledger.come_back([str(self._write.name)])
            except RegistryError as error:
                self._fail(str(self._write.name), error)
                break
            # It is incomplete here: it will be rebuilt and published again.
            except StoreError as error:
                self._note(f"The {record.kind} {key.short} was not published: {error.what}.")
                self._ledger.drop(self._write.name, key)
        return published

    def _publish(self, record: Record, repository: Repository) -> None:
        manifest = Manifest.parse(self._cache.blobs.read(record.artifact))
        index = record_index(record, manifest.descriptor, self._project)
        tag = record_tag(record.key)
        with repository.writing():
            keep = keep_tag(manifest.digest)
            self._transfer.push(manifest, repository, keep)
            try:
                repository.put_manifest(index, tag)
            except BlobMissing:  # The artifact was collected meanwhile.
                self._ledger.forget(repository.name)
                self._transfer.push(manifest, repository, keep)
                repository.put_manifest(index, tag)
        kept = repository.manifest(tag)
        theirs = PublishedRecord.parse(kept) if kept else None
        if theirs is None:
            raise RegistryUnreachable(
                f"{repository.name} does not have the record that was just published",
                why=f"The tag {tag} is missing.",
            )
        if theirs.artifact.digest != record.artifact:
            self._note(
                f"{repository.name} has {theirs.artifact.digest.short} from another machine instead"
                f" of {record.artifact.short} from this one ({record.kind} {record.key.short});"
                " theirs is used from now on."
            )
            self._cache.records.remove(record.key)  # So that theirs is fetched next time.
        self._ledger.settle(repository.name, record.key, theirs.published)

    def _miss(self, place: str, name: str, error: FlyteError) -> None:
        """Note why the content of a repository for `name` is ignored.

        A repository that fails as a whole is not contacted again.
        """
        if isinstance(error, RegistryError) and (
            isinstance(error, RepositoryCorrupt) or not isinstance(error, RegistryCorrupt)
        ):
            self._fail(place, error)
        else:
            self._note(
                f"The content of {place} for {name} is ignored: {error.what}. {error.why}".rstrip()
            )

    def _fail(self, place: str, error: RegistryError) -> None:
        if place in self._failed:
            return
        self._failed.add(place)
        if isinstance(error, RegistryUnreachable) and not self._ledger.leave(place):
            return  # It was noted when it first failed.
        why = ": ".join(part.rstrip(".") for part in (error.what, error.why) if part)
        later = (
            "; a later command publishes what is built here"
            if self._write and str(self._write.name) == place
            else ""
        )
        for_now = (
            " It is tried again in a few minutes." if isinstance(error, RegistryUnreachable) else ""
        )
        self._note(
            f"{why}. This command continues without it{later}.{for_now}"
            + (f" {error.hint}" if error.hint else "")
        )
