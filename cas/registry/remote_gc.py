"""Garbage collection in a repository: deletion of the records that are no longer used.

Registries keep no time of last use, so records in use are published again weekly; one that is older
than the keep time is unused. Only the indexes of records are deleted, by digest. The tag of an
artifact that no other record or tag refers to is first moved to the index, and so goes with it.
What has no tag then is left to the registry's own garbage collection, or, in a directory, swept
here.
"""

from __future__ import annotations

import time
from collections.abc import Collection as Container
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from flyte_build.cas.digest import Digest
from flyte_build.cas.gc import Collection, Removed
from flyte_build.errors import RegistryCorrupt, RegistryRefused

from .layout import LayoutRepository
from .published_record import PublishedRecord, published_records
from .repository import Repository
from .tags import KEEP, RECORD, keep_tag

_PARALLEL = 8
_OWN = (RECORD, KEEP)


def collect_records(repository: Repository, project: str, keep: float, dry_run: bool) -> Collection:
    """Delete the records that `project` published more than `keep` seconds ago, and no others.

    Raises `RegistryRefused` if the registry does not allow deletion.
    """
    limit = time.time() - keep
    found = list(published_records(repository))
    old = [record for record in found if record.project == project and record.published <= limit]
    orphans = (
        _orphans(repository, old, [record for record in found if record not in old])
        if old
        else set()
    )
    if not dry_run:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(lambda record: _delete(repository, record, orphans), old))
    removed = [
        Removed(
            record.index.digest,
            len(record.index.data),
            f"the record of {record.kind} {record.key.short} was last published on"
            f" {_day(record.published)}",
            "published records",
        )
        for record in old
    ]
    if isinstance(repository, LayoutRepository):
        gone = {record.index.digest for record in old}
        swept = repository.sweep(gone | orphans, dry_run)
        removed += [
            Removed(digest, size, "no tag refers to it")
            for digest, size in swept
            if digest not in gone
        ]
    return Collection(removed, len(found) - len(old))


def delete_record(repository: Repository, record: PublishedRecord) -> None:
    """Delete a record. Raises `RegistryRefused` if the registry does not allow deletion."""
    others = [
        each for each in published_records(repository) if each.index.digest != record.index.digest
    ]
    _delete(repository, record, _orphans(repository, [record], others))


def _orphans(
    repository: Repository, gone: Iterable[PublishedRecord], staying: Iterable[PublishedRecord]
) -> set[Digest]:
    """Return the artifacts that nothing refers to once the records in `gone` are deleted."""
    needed = {record.artifact.digest for record in staying}
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for found in pool.map(
            lambda tag: _named(repository, tag),
            [tag for tag in repository.tags() if not tag.startswith(_OWN)],
        ):
            needed |= found
    return {record.artifact.digest for record in gone} - needed


def _named(repository: Repository, tag: str) -> set[Digest]:
    """Return the digests that a tag refers to: its manifest, and the manifests in that."""
    try:
        manifest = repository.manifest(tag)
        if manifest is None:
            return set()
        return {
            manifest.digest,
            *(each.digest for each in (manifest.manifests if manifest.is_index else ())),
        }
    except RegistryCorrupt:
        return set()


def _delete(repository: Repository, record: PublishedRecord, orphans: Container[Digest]) -> None:
    artifact = record.artifact.digest
    if artifact in orphans and (kept := repository.manifest(artifact)):
        repository.put_manifest(record.index, keep_tag(artifact))
    else:
        kept = None
    try:
        repository.delete_manifest(record.index.digest)
    except RegistryRefused as error:
        if kept:
            repository.put_manifest(kept, keep_tag(artifact))
        raise RegistryRefused(
            f"{repository.name} does not allow deletion",
            why=error.why,
            hint=(
                "Enable it in the registry, or let the registry's own policy remove tags that"
                f" begin with `{RECORD}` and `{KEEP}`."
            ),
        ) from None


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
