"""Collecting a repository: removing the records that nobody has used for some time.

A record in use is published again weekly, since registries keep no time of last use; so one that is older than the keep time is
not in use. Only records' own indexes are deleted, by digest: nothing else goes with them. What they named is left to the
registry's own collection, and in a folder it is swept here.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from flyte_build.cas.gc import Collection, Removed

from .layout import LayoutRepository
from .records import delete_record, published_records
from .repository import Repository

_PARALLEL = 8


def collect_records(repository: Repository, project: str, keep: float, dry_run: bool) -> Collection:
    """Remove the records that `project` published more than `keep` seconds ago, and no others.

    Raises `RegistryRefused` where the registry does not allow it.
    """
    limit = time.time() - keep
    found = list(published_records(repository))
    old = [record for record in found if record.project == project and record.published <= limit]
    if not dry_run:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(lambda record: delete_record(repository, record.digest), old))
    removed = [
        Removed(
            record.digest, record.size, f"the record of {record.kind} {record.key.short} was last published on {_day(record.published)}"
        )
        for record in old
    ]
    if isinstance(repository, LayoutRepository):
        gone = {record.digest for record in old}
        removed += [Removed(digest, size, "nothing leads to it") for digest, size in repository.sweep(gone, dry_run)]
    return Collection(removed, len(found) - len(old))


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
