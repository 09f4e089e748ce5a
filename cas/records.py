"""Records: "this key produced this artifact", with the inputs that made up the key, so that a miss
can be explained.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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
"""A record as far as space matters: its key, when it was last used, and what it refers to."""
# Seconds within which a second use of a record is not written down: a warm command writes nothing.
_FRESH = 3600
# A use "in the future" was written before the clock was set back: it counts as one now.
_USED_AFTER = "min(used, ?) > ?"


@dataclass(frozen=True)
class Record:
    """What a key produced.

    `artifact` is the digest that identifies it; `refs` are the digests that must stay for it to be
    usable: of blobs, and of what is made of blobs and lies elsewhere in the cache, by its identity.
    `inputs` are JSON values, for people.
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
        """The record of `key`, marked as used now."""
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
        """Write a record, in the place of one for the same key. All that it refers to must be
        durable already.
        """
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
        """Forget a record; blobs are not touched."""
        self._database.execute("DELETE FROM records WHERE key=?", (key,))

    def remove_all(self, keys: Iterable[Key]) -> None:
        """Forget these records, and the labels and traces that named them."""
        self._database.execute_many("DELETE FROM records WHERE key=?", [(key,) for key in keys])
        self._forget_names()

    def _forget_names(self) -> None:
        self._database.execute("DELETE FROM labels WHERE key NOT IN (SELECT key FROM records)")
        self._database.execute("DELETE FROM traces WHERE key NOT IN (SELECT key FROM records)")

    def uses(self, limit: int, needed: Iterable[Key] = ()) -> list[Use]:
        """The records used after `limit`, and those that are `needed` in any case."""
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
        """The records last used at `limit` or before, but for those that refer only to what the
        `staying` ones do.

        Removing such a one would free nothing: a part's is used only when a whole is made of it,
        and then saves that work.
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
        """The records that cannot be used without `digest`."""
        rows = self._database.execute(
            "SELECT key, kind, artifact, refs, inputs FROM records WHERE instr(refs, ?) > 0",
            (digest,),
        )
        return [_record(row) for row in rows]

    def all(self) -> list[Record]:
        """Every record."""
        return [
            _record(row)
            for row in self._database.execute(
                "SELECT key, kind, artifact, refs, inputs FROM records"
            )
        ]

    def keys(self, start: str) -> list[Key]:
        """The keys that begin with `start`."""
        return [
            Key(key)
            for (key,) in self._database.execute(
                "SELECT key FROM records WHERE substr(key, 1, ?)=?", (len(start), start)
            )
        ]

    def count(self) -> int:
        """How many records there are."""
        (count,) = self._database.one("SELECT count(*) FROM records")
        return int(count)

    def version(self) -> int:
        """A number that changes when another process writes (sqlite.org/pragma.html,
        "data_version").
        """
        (version,) = self._database.one("PRAGMA data_version")
        return int(version)

    def last(self, label: str) -> Record | None:
        """The record that was the outcome of the last resolve under `label`, if it is
        still kept.
        """
        row = self._database.one(
            "SELECT key, kind, artifact, refs, inputs FROM records WHERE key=(SELECT key FROM"
            " labels WHERE label=?)",
            (label,),
        )
        return _record(row) if row else None

    def set_last(self, label: str, key: Key) -> None:
        """Remember `key` as the outcome of the last resolve under `label`; writes nothing when it
        is so already.
        """
        row = self._database.one("SELECT key FROM labels WHERE label=?", (label,))
        if row is None or row[0] != key:
            self._database.execute(
                "INSERT OR REPLACE INTO labels VALUES(?,?,?)", (label, key, int(time.time()))
            )

    def of_kind(self, kind: str) -> list[Record]:
        """Every record of `kind`."""
        return [
            _record(row)
            for row in self._database.execute(
                "SELECT key, kind, artifact, refs, inputs FROM records WHERE kind=?", (kind,)
            )
        ]

    def labelled(self, kind: str) -> list[tuple[str, Record]]:
        """Every label whose last outcome is a record of `kind`, with that record."""
        rows = self._database.execute(
            "SELECT label, records.key, kind, artifact, refs, inputs FROM labels JOIN records ON"
            " labels.key=records.key WHERE kind=? ORDER BY label",
            (kind,),
        )
        return [(row[0], _record(row[1:])) for row in rows]

    def traces(self, base: Key, limit: int) -> list[tuple[Key, Any]]:
        """What was seen while each of the last `limit` artifacts of `base` was made (JSON), newest
        first, by record key.
        """
        rows = self._database.execute(
            "SELECT key, seen FROM traces WHERE base=? ORDER BY used DESC LIMIT ?", (base, limit)
        )
        return [(Key(key), json.loads(seen)) for key, seen in rows]

    def add_trace(self, base: Key, key: Key, seen: Any, limit: int) -> None:
        """Remember what was seen; the oldest of a base's traces beyond `limit` are dropped."""
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
