"""What this machine knows of repositories: which blobs they hold, and what was published there or
is still to be.

Knowledge is for one repository, and is never relied upon: a manifest is refused by a registry that
does not hold what it names.
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
# Seconds for which a place that cannot be reached is left alone, at first and at most.
_SHORT, _LONG = 300, 3600
_OWED = 0  # Stands for the time of a publication that has not happened yet.


class Ledger:
    """The ledger in a cache's database. Times are whole seconds since the epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def holds(self, place: RepositoryName, digest: Digest) -> bool:
        """Whether a blob was seen at that place within the last week."""
        since = int(time.time()) - _WEEK
        return bool(
            self._database.one(
                "SELECT 1 FROM held WHERE place=? AND digest=? AND seen>?",
                (str(place), digest, since),
            )
        )

    def holder_beside(self, place: RepositoryName, digest: Digest) -> RepositoryName | None:
        """Another repository of the same registry that was seen to hold a blob."""
        if not place.host:
            return None
        from .name import RepositoryName

        rows = self._database.execute(
            "SELECT place FROM held WHERE digest=? AND place LIKE ?", (digest, f"{place.host}/%")
        )
        return next((RepositoryName.parse(name) for (name,) in rows if name != str(place)), None)

    def hold(self, place: RepositoryName, digests: Iterable[Digest]) -> None:
        """Remember that these blobs were seen at that place now."""
        now = int(time.time())
        self._database.execute_many(
            "INSERT OR REPLACE INTO held VALUES(?,?,?)",
            [(str(place), digest, now) for digest in digests],
        )
        self._database.execute("DELETE FROM held WHERE seen<=?", (now - _WEEK,))

    def forget(self, place: RepositoryName) -> None:
        """Forget all that was seen at that place: something that should be there was not."""
        self._database.execute("DELETE FROM held WHERE place=?", (str(place),))

    def is_due(self, place: RepositoryName, key: Key) -> bool:
        """Whether a record is to be published there: it never was, or more than a week ago."""
        row = self._database.one(
            "SELECT published FROM publications WHERE place=? AND key=?", (str(place), key)
        )
        return row is None or row[0] <= time.time() - _WEEK

    def owe(self, place: RepositoryName, key: Key) -> None:
        """Remember that a record is to be published there."""
        self._database.execute(
            "INSERT OR REPLACE INTO publications VALUES(?,?,?)", (str(place), key, _OWED)
        )

    def owed(self, place: RepositoryName) -> list[Key]:
        """What is to be published there."""
        return [
            Key(key)
            for (key,) in self._database.execute(
                "SELECT key FROM publications WHERE place=? AND published=?", (str(place), _OWED)
            )
        ]

    def owed_anywhere(self) -> list[Key]:
        """What is to be published, wherever that is."""
        return [
            Key(key)
            for (key,) in self._database.execute(
                "SELECT DISTINCT key FROM publications WHERE published=?", (_OWED,)
            )
        ]

    def settle(self, place: RepositoryName, key: Key, at: float | None = None) -> None:
        """Remember that a record was published there, now or at a time."""
        self._database.execute(
            "INSERT OR REPLACE INTO publications VALUES(?,?,?)",
            (str(place), key, max(1, int(time.time() if at is None else at))),
        )

    def drop(self, place: RepositoryName, key: Key) -> None:
        """Forget about a publication: the record is gone, here or there."""
        self._database.execute(
            "DELETE FROM publications WHERE place=? AND key=?", (str(place), key)
        )

    def drop_everywhere(self, keys: Iterable[Key]) -> None:
        """Forget about all publications of some records: they are gone here, and what they said was
        wrong.
        """
        self._database.execute_many(
            "DELETE FROM publications WHERE key=?", [(key,) for key in keys]
        )

    def away(self) -> list[str]:
        """Return the places that are left alone for now, since they could not be reached a short
        time ago.
        """
        now = int(time.time())
        return [
            place
            for (place,) in self._database.execute(
                "SELECT place FROM absences WHERE until>? AND since<=?", (now, now)
            )
        ]

    def leave(self, place: str) -> bool:
        """Leave a place alone for some minutes, the longer the longer it cannot be reached; return
        whether that is new.
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
        """Ask places again that were left alone."""
        for place in places:
            # Nothing is written where nothing is new.
            if self._database.one("SELECT 1 FROM absences WHERE place=?", (place,)):
                self._database.execute("DELETE FROM absences WHERE place=?", (place,))
