"""Ledger of repositories: the blobs seen in each, and the records published or due there.

Its knowledge is never relied upon: a registry rejects a manifest if it lacks something that the
manifest refers to.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flyte_build.cas.database import Database
from flyte_build.cas.digest import Digest, Key

if TYPE_CHECKING:
    from .name import RepositoryName

SCHEMA = """
CREATE TABLE IF NOT EXISTS held(
  place TEXT NOT NULL, digest TEXT NOT NULL, seen INTEGER NOT NULL,
  PRIMARY KEY(place, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS publications(
  place TEXT NOT NULL, key TEXT NOT NULL, published INTEGER NOT NULL,
  PRIMARY KEY(place, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS absences(
  place TEXT PRIMARY KEY, since INTEGER NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;
"""
_WEEK = 7 * 86400
# Seconds for which an unreachable repository is not contacted, at first and at most.
_SHORT, _LONG = 300, 3600
_OWED = 0  # Time of a publication that has not happened yet.


class Ledger:
    """The ledger in a cache's database. Times are whole seconds since the epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def holds(self, place: RepositoryName, digest: Digest) -> bool:
        """Whether a blob was seen in that repository within the last week."""
        since = int(time.time()) - _WEEK
        return bool(
            self._database.one(
                "SELECT 1 FROM held WHERE place=? AND digest=? AND seen>?",
                (str(place), digest, since),
            )
        )

    def holder_beside(self, place: RepositoryName, digest: Digest) -> RepositoryName | None:
        """Return another repository of the same registry in which a blob was seen, or None."""
        if not place.host:
            return None
        from .name import RepositoryName

        rows = self._database.execute(
            "SELECT place FROM held WHERE digest=? AND place LIKE ?", (digest, f"{place.host}/%")
        )
        return next((RepositoryName.parse(name) for (name,) in rows if name != str(place)), None)

    def hold(self, place: RepositoryName, digests: Iterable[Digest]) -> None:
        """Remember that these blobs were just seen in that repository."""
        now = int(time.time())
        self._database.execute_many(
            "INSERT OR REPLACE INTO held VALUES(?,?,?)",
            [(str(place), digest, now) for digest in digests],
        )
        self._database.execute("DELETE FROM held WHERE seen<=?", (now - _WEEK,))

    def forget(self, place: RepositoryName) -> None:
        """Forget all blobs seen in that repository, because an expected one was missing."""
        self._database.execute("DELETE FROM held WHERE place=?", (str(place),))

    def is_due(self, place: RepositoryName, key: Key) -> bool:
        """Whether to publish a record: it never was published there, or more than a week ago."""
        row = self._database.one(
            "SELECT published FROM publications WHERE place=? AND key=?", (str(place), key)
        )
        return row is None or row[0] <= time.time() - _WEEK

    def owe(self, place: RepositoryName, key: Key) -> None:
        """Mark a record as still to be published to that repository."""
        self._database.execute(
            "INSERT OR REPLACE INTO publications VALUES(?,?,?)", (str(place), key, _OWED)
        )

    def owed(self, place: RepositoryName) -> list[Key]:
        """Return the keys that are still to be published to that repository."""
        return [
            Key(key)
            for (key,) in self._database.execute(
                "SELECT key FROM publications WHERE place=? AND published=?", (str(place), _OWED)
            )
        ]

    def owed_anywhere(self) -> list[Key]:
        """Return the keys that are still to be published to any repository."""
        return [
            Key(key)
            for (key,) in self._database.execute(
                "SELECT DISTINCT key FROM publications WHERE published=?", (_OWED,)
            )
        ]

    def settle(self, place: RepositoryName, key: Key, at: float | None = None) -> None:
        """Mark a record as published to that repository, at `at` (default: now)."""
        self._database.execute(
            "INSERT OR REPLACE INTO publications VALUES(?,?,?)",
            (str(place), key, max(1, int(time.time() if at is None else at))),
        )

    def drop(self, place: RepositoryName, key: Key) -> None:
        """Forget a publication, because the record is gone here or there."""
        self._database.execute(
            "DELETE FROM publications WHERE place=? AND key=?", (str(place), key)
        )

    def drop_everywhere(self, keys: Iterable[Key]) -> None:
        """Forget all publications of some records, because they were wrong and are gone."""
        self._database.execute_many(
            "DELETE FROM publications WHERE key=?", [(key,) for key in keys]
        )

    def away(self) -> list[str]:
        """Return the repositories that are not contacted now: they were recently unreachable."""
        now = int(time.time())
        return [
            place
            for (place,) in self._database.execute(
                "SELECT place FROM absences WHERE until>? AND since<=?", (now, now)
            )
        ]

    def leave(self, place: str) -> bool:
        """Stop contacting a repository for some minutes; return whether it was contacted before.

        The longer it is unreachable, the longer the pause.
        """
        now = int(time.time())
        row = self._database.one("SELECT since FROM absences WHERE place=?", (place,))
        since = min(row[0], now) if row else now
        until = now + max(_SHORT, min(_LONG, now - since))
        self._database.execute(
            "INSERT OR REPLACE INTO absences VALUES(?,?,?)", (place, since, until)
        )
        return row is None

    def come_back(self, places: Iterable[str]) -> None:
        """Resume contacting repositories."""
        for place in places:
            # Without news, nothing is written.
            if self._database.one("SELECT 1 FROM absences WHERE place=?", (place,)):
                self._database.execute("DELETE FROM absences WHERE place=?", (place,))
