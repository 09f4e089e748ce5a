"""Verification and repair of the whole store: a corrupt blob is fetched, or rebuilt when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .cache import Cache
from .digest import Digest, Key
from .records import Record
from .registry.ledger import Ledger


@dataclass(frozen=True)
class Bad:
    """A defect: the digest concerned, what is wrong, and whether it was repaired or removed."""

    digest: str
    what: str
    repaired: bool


def verify_blobs(
    cache: Cache,
    progress: Callable[[int, int], None],
    repair: Callable[[Record], str] = lambda record: "",
    blobs_of: Callable[[Record], Iterable[Digest]] = lambda record: record.refs,
) -> tuple[int, list[Bad]]:
    """Verify every blob, quarantining corrupt ones; return the number checked, and the defects.

    A record is deleted if any blob that `blobs_of` returns for it is missing, unless `repair`
    fetches them: it returns the place they came from, or "".
    """
    names = list(cache.blobs.names())
    quarantined = []
    for done, (digest, _) in enumerate(names):
        progress(done, len(names))
        if not cache.blobs.verify(digest):
            quarantined.append(digest)
    needing = {digest: cache.records.needing(digest) for digest in quarantined}
    places: dict[Key, str] = {}
    bad = []
    for record in cache.records.all():
        if cache.blobs.has_all(blobs_of(record)):
            continue
        places[record.key] = repair(record)
        if not places[record.key]:
            cache.records.remove(record.key)
        if not any(record in records for records in needing.values()):
            bad.append(
                Bad(
                    record.artifact,
                    f"a {record.kind} was recorded, but its blobs are missing;"
                    f" {_remedy([places[record.key]])}",
                    True,
                )
            )
    for digest, records in needing.items():
        remedy = _remedy([places.get(record.key, "") for record in records])
        bad.append(
            Bad(digest, f"its bytes have a different digest; it is in quarantine; {remedy}", True)
        )
    return len(names), bad


def forget(cache: Cache, record: Record) -> None:
    """Delete a record whose artifact proved wrong, and all records that share one of its blobs.

    They are then rebuilt, and published, again.
    """
    keys = {record.key, *(each.key for ref in record.refs for each in cache.records.needing(ref))}
    cache.records.remove_all(keys)
    Ledger(cache.database).drop_everywhere(keys)


def _remedy(places: list[str]) -> str:
    found = sorted(filter(None, set(places)))
    return f"fetched again from {', '.join(found)}" if found else "it will be rebuilt when needed"
