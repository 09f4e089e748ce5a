"""The shared cache: what other machines have made, and what this one makes for them.

A registry that does not answer, or not as it should, costs a command little and fails nothing: a
look-up is a miss then, and what could not be published is published by a later command.
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

_MANY = 20  # Keys that are rather looked for in the list of all tags.
_PARALLEL = 8
_LARGEST = 16 << 30  # Bytes of an artifact that is fetched at most; what is larger is made here.


@dataclass(frozen=True)
class Offer:
    """What a repository has under a key."""

    record: PublishedRecord
    repository: Repository

    @property
    def place(self) -> str:
        """The repository's name."""
        return str(self.repository.name)


@dataclass(frozen=True)
class Shares:
    """Where records are looked for, in order, and where they are published, if anywhere; `project`
    is who publishes.
    """

    reads: Sequence[RepositoryName]
    write: RepositoryName | None
    project: str


class SharedCache:
    """The repositories of some `shares`, from a command's pool.

    `note` is told once of a repository that fails; it is not asked again. `progress` is told how
    many bytes of how many were moved.
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
        """What the first repository that knows a key has under it; nothing, if it has lost that."""
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
            self._note(f"{place} holds a record of another key than {key}; it is not used.")
            return None
        return Offer(record, repository) if record else None

    def catalogue(self) -> Iterator[Offer]:
        """All that this project has published in the repositories that are read, each key once.
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
        """The manifests under a tag in the repositories that are read, each with its place; they
        and their configs are here then.
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
        """Fetch what a repository has under a key, and record it; gives the record and the place
        where it was found.

        Unless `whole`, the layers stay where they are: a manifest and its config say all that is
        asked of them here.

        `accept` looks at the artifact, whose blobs are here by then, and gives what must stay for
        it; it raises a `FlyteError` for what is not what the key asks for.
        """
        offer = self._find(key)
        if offer is None:
            return None
        found = offer.record
        try:
            self._transfer.pull(found.artifact.digest, offer.repository, whole, _LARGEST)
            refs = accept(found.artifact.digest)
        except (BlobMissing, BlobCorrupt):
            # It was collected there, or went bad here; whoever makes it publishes it again.
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
        """Fetch the blobs of a record that are not here any more, and say from where; "" if nobody
        has just those.
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
        """The keys whose artifact the repository that is written to has not; with `anywhere`, and
        no other that is read has one.

        The artifacts here are given where they are known. Raises `RegistryError` if it cannot be
        told of the repository that is written to.
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
        """The keys whose artifact a repository has not. Of many, those are told by the list of tags
        for which it says all.
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
        """The records, in the repository that is written to, of the keys that begin with `start`.
        Raises `RegistryError`.
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
        """Remove one of the records that `published` gives. Raises `RegistryError`."""
        from .remote_gc import delete_record

        assert self._write is not None
        delete_record(self._write, record)
        self._ledger.drop(self._write.name, record.key)

    def publish(self, keys: Iterable[Key]) -> list[Record]:
        """Publish the records of keys that are owed; gives those that were. What fails stays owed,
        and is said.
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
            # Here it is not whole any more: whoever makes it again publishes it.
            except StoreError as error:
                self._note(f"The {record.kind} {key.short} is not published: {error.what}.")
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
            except BlobMissing:  # The artifact was collected in between.
                self._ledger.forget(repository.name)
                self._transfer.push(manifest, repository, keep)
                repository.put_manifest(index, tag)
        kept = repository.manifest(tag)
        theirs = PublishedRecord.parse(kept) if kept else None
        if theirs is None:
            raise RegistryUnreachable(
                f"{repository.name} does not have what was just put there",
                why=f"The tag {tag} is not there.",
            )
        if theirs.artifact.digest != record.artifact:
            self._note(
                f"{repository.name} has {theirs.artifact.digest.short} from another machine for"
                f" what is {record.artifact.short} here ({record.kind} {record.key.short}); theirs"
                " is used from now on."
            )
            self._cache.records.remove(record.key)  # So that it is fetched when it is needed next.
        self._ledger.settle(repository.name, record.key, theirs.published)

    def _miss(self, place: str, name: str, error: FlyteError) -> None:
        """Say why what is at a place under a name is not used; a place that fails as a whole is not
        asked again.
        """
        if isinstance(error, RegistryError) and (
            isinstance(error, RepositoryCorrupt) or not isinstance(error, RegistryCorrupt)
        ):
            self._fail(place, error)
        else:
            self._note(
                f"What {place} holds for {name} is not used: {error.what}. {error.why}".rstrip()
            )

    def _fail(self, place: str, error: RegistryError) -> None:
        if place in self._failed:
            return
        self._failed.add(place)
        if isinstance(error, RegistryUnreachable) and not self._ledger.leave(place):
            return  # It was said when it began.
        why = ": ".join(part.rstrip(".") for part in (error.what, error.why) if part)
        later = (
            "; what is made here is published by a later command"
            if self._write and str(self._write.name) == place
            else ""
        )
        for_now = (
            " It is asked again in some minutes." if isinstance(error, RegistryUnreachable) else ""
        )
        self._note(
            f"{why}. This command goes on without it{later}.{for_now}"
            + (f" {error.hint}" if error.hint else "")
        )
