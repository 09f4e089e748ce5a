"""Records: "this key produced this artifact".

A record also holds the inputs from which its key was computed, to explain cache misses.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .database import Database
from .digest import Digest, Key

SCHEMA = """
CREATE TABLE IF NOT EXISTS records(
  key TEXT PRIMARY KEY, kind TEXT NOT NULL, artifact TEXT NOT NULL, refs TEXT NOT NULL,
  inputs TEXT NOT NULL,
  used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS labels(
  label TEXT PRIMARY KEY, key TEXT NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS traces(
  base TEXT NOT NULL, key TEXT NOT NULL, seen TEXT NOT NULL, used INTEGER NOT NULL,
  PRIMARY KEY(base, key)) WITHOUT ROWID;
"""
Use = tuple[Key, int, tuple[Digest, ...]]
"""A record, reduced for space accounting: its key, when it was last used, and its references."""
# Seconds within which a further use of a record is not written: a warm command writes nothing.
_FRESH = 3600
# A use "in the future" was written before the clock was set back, and counts as a use now.
_USED_AFTER = "min(used, ?) > ?"


class Record(NamedTuple):
    """The artifact that a key produced.

    `artifact` is the digest that identifies it. `refs` are the digests of everything that must
    exist for it to be usable: blobs, and things built from blobs elsewhere in the cache, by their
    identity. `inputs` are JSON values, for explanations.
    """

    key: Key
    kind: str
    artifact: Digest
    refs: tuple[Digest, ...]
    inputs: Mapping[str, Any]


class Records:
    """The records of one cache, in its database. Times are whole seconds since the epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, key: Key) -> Record | None:
        """Return the record of `key`, if there is one, and mark it as used now."""
        row = self._database.one(
            "SELECT key, kind, artifact, refs, inputs, used FROM records WHERE key=?", (key,)
        )
        if row is None:
            return None
        now = int(time.time())
        if not now - _FRESH < row[5] <= now:
            self._database.execute("UPDATE records SET used=? WHERE key=?", (now, key))
        return _record(row)

    def add(self, record: Record) -> None:
        """Write a record, replacing any with its key. Everything it refers to must be durable."""
        self._database.execute(
            "INSERT OR REPLACE INTO records VALUES(?,?,?,?,?,?)",
            (
                record.key,
                record.kind,
                record.artifact,
                json.dumps(record.refs),
                json.dumps(record.inputs, sort_keys=True),
                int(time.time()),
            ),
        )

    def remove(self, key: Key) -> None:
        """Delete a record, but none of its blobs."""
        self._database.execute("DELETE FROM records WHERE key=?", (key,))

    def remove_all(self, keys: Iterable[Key]) -> None:
        """Delete these records, with the labels and traces that refer to them."""
        self._database.execute_many("DELETE FROM records WHERE key=?", [(key,) for key in keys])
        self._forget_names()

    def _forget_names(self) -> None:
        self._database.execute("DELETE FROM labels WHERE key NOT IN (SELECT key FROM records)")
        self._database.execute("DELETE FROM traces WHERE key NOT IN (SELECT key FROM records)")

    def uses(self, limit: int, needed: Iterable[Key] = ()) -> list[Use]:
        """Return the records used after `limit`, and those in `needed` in any case."""
        now = int(time.time())
        condition = f"{_USED_AFTER} OR key IN (SELECT value FROM json_each(?))"
        rows = self._database.execute(
            f"SELECT key, used, refs FROM records WHERE {condition}",
            (now, limit, json.dumps(list(needed))),
        )
        return [
            (Key(key), min(used, now), tuple(map(Digest, json.loads(refs))))
            for key, used, refs in rows
        ]

    def unused(self, limit: int, staying: Iterable[Use]) -> list[Key]:
        """Return the records last used at or before `limit` whose removal would free something.

        A record that refers only to things that the `staying` ones need is left out: it stands for
        a part of a larger artifact, is used only when that is rebuilt, and saves work then.
        """
        needed = {ref for _, _, refs in staying for ref in refs}
        rows = self._database.execute(
            f"SELECT key, refs FROM records WHERE NOT {_USED_AFTER}", (int(time.time()), limit)
        )
        return [
            Key(key)
            for key, refs in rows
            if not (found := json.loads(refs)) or not needed.issuperset(found)
        ]

    def needing(self, digest: Digest) -> list[Record]:
        """Return the records that refer to `digest`."""
        rows = self._database.execute(
            "SELECT key, kind, artifact, refs, inputs FROM records WHERE instr(refs, ?) > 0",
            (digest,),
        )
        return [_record(row) for row in rows]

    def all(self) -> list[Record]:
        """Return every record."""
        return [
            _record(row)
            for row in self._database.execute(
                "SELECT key, kind, artifact, refs, inputs FROM records"
            )
        ]

    def keys(self, start: str) -> list[Key]:
        """Return the keys that begin with `start`."""
        return [
            Key(key)
            for (key,) in self._database.execute(
                "SELECT key FROM records WHERE substr(key, 1, ?)=?", (len(start), start)
            )
        ]

    def count(self) -> int:
        """Return the number of records."""
        (count,) = self._database.one("SELECT count(*) FROM records")
        return int(count)

    def version(self) -> int:
        """Return a number that changes when another process writes to the database.

        (sqlite.org/pragma.html, "data_version")
        """
        (version,) = self._database.one("PRAGMA data_version")
        return int(version)

    def last(self, label: str) -> Record | None:
        """Return the record of the last resolve under `label`, if it still exists."""
        row = self._database.one(
            "SELECT key, kind, artifact, refs, inputs FROM records WHERE key=(SELECT key FROM"
            " labels WHERE label=?)",
            (label,),
        )
        return _record(row) if row else None

    def set_last(self, label: str, key: Key) -> None:
        """Remember `key` as the result of the last resolve under `label`, unless it is already."""
        row = self._database.one("SELECT key FROM labels WHERE label=?", (label,))
        if row is None or row[0] != key:
            self._database.execute(
                "INSERT OR REPLACE INTO labels VALUES(?,?,?)", (label, key, int(time.time()))
            )

    def of_kind(self, kind: str) -> list[Record]:
        """Return every record of `kind`."""
        return [
            _record(row)
            for row in self._database.execute(
                "SELECT key, kind, artifact, refs, inputs FROM records WHERE kind=?", (kind,)
            )
        ]

    def labelled(self, kind: str) -> list[tuple[str, Record]]:
        """Return every label whose last result is a record of `kind`, with that record."""
        rows = self._database.execute(
            "SELECT label, records.key, kind, artifact, refs, inputs FROM labels JOIN records ON"
            " labels.key=records.key WHERE kind=? ORDER BY label",
            (kind,),
        )
        return [(row[0], _record(row[1:])) for row in rows]

    def traces(self, base: Key, limit: int) -> list[tuple[Key, Any]]:
        """Return the last `limit` traces of `base` (record key and JSON value), newest first.

        A trace holds what was seen while the artifact of a record was built.
        """
        rows = self._database.execute(
            "SELECT key, seen FROM traces WHERE base=? ORDER BY used DESC LIMIT ?", (base, limit)
        )
        return [(Key(key), json.loads(seen)) for key, seen in rows]

    def add_trace(self, base: Key, key: Key, seen: Any, limit: int) -> None:
        """Add a trace for `base`, keeping only its newest `limit` traces."""
        # Nanoseconds, so that two traces of one second keep their order.
        self._database.execute(
            "INSERT OR REPLACE INTO traces VALUES(?,?,?,?)",
            (base, key, json.dumps(seen), time.time_ns()),
        )
        self._database.execute(
            "DELETE FROM traces WHERE base=? AND key NOT IN (SELECT key FROM traces WHERE base=?"
            " ORDER BY used DESC LIMIT ?)",
            (base, base, limit),
        )


def _record(row: tuple[Any, ...]) -> Record:
    key, kind, artifact, refs, inputs = row[:5]
    return Record(
        Key(key),
        kind,
        Digest(artifact),
        tuple(Digest(ref) for ref in json.loads(refs)),
        json.loads(inputs),
    )
