"""SQLite databases that are shared by many processes.

The journal is a write-ahead log, except on network file systems, where its shared memory does not
work and SQLite's rollback journal is used (sqlite.org/wal.html, "Overview"). The version of the
schema is `PRAGMA user_version`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flyte_build.errors import StoreError, StoreFormatUnknown, StoreUnavailable

from .folder import mode_in, opener
from .os_errors import storing

_NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "afpfs",
        "9p",
        "lustre",
        "gpfs",
        "fuse.sshfs",
        "ceph",
    }
)
_DAMAGED = ".is-damaged"  # Suffix of a marker file beside a database in which damage was found.
_WAIT = 30.0  # Seconds to wait for another process's transaction.


class Database:
    """An open database.

    Every SQLite error is raised as `StoreUnavailable`; damage is repaired by the next open.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection, self._path = connection, path
        self._lock = threading.RLock()  # Another thread's statements are in no transaction.

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one statement in a transaction of its own, and return all of its rows."""
        with self._lock, self._errors():
            return self._connection.execute(
                statement, [_encodable(value) for value in values]
            ).fetchall()

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of `rows`, all in one transaction."""
        if rows:
            with self.transaction(), self._errors():
                self._connection.executemany(
                    statement, [[_encodable(value) for value in row] for row in rows]
                )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the statements of the body in one transaction; other threads wait for its end."""
        with self._lock:
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                # A full disk has already ended the transaction.
                if self._connection.in_transaction:
                    self.execute("ROLLBACK")
                raise
            self.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if _is_damage(error):
                with open(self._path + _DAMAGED, "w", opener=opener):
                    pass
            raise _unavailable(self._path, error) from error

    def close(self) -> None:
        """Close the database; this also happens when the process ends."""
        self._connection.close()

    def one(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Run one statement, and return its first row, or None."""
        rows = self.execute(statement, values)
        return rows[0] if rows else None


def open_database(
    path: str,
    version: int,
    schema: str,
    on_damage: Callable[[str], None],
    since: Mapping[int, Sequence[str]] = {},
) -> Database:
    """Open the database at `path`, creating it with `schema` if it is new.

    An older database is upgraded: by the statements in `since` for its version and each later one,
    then by `schema`, which creates only what is missing. A damaged database is moved aside,
    `on_damage` is called with its new path, and a new one is created. Raises `StoreFormatUnknown`
    if the database is newer than `version`, and `StoreUnavailable` if it cannot be used at all.
    """
    try:
        if not os.path.exists(path + _DAMAGED):
            return Database(_open(path, version, schema, since), path)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise _unavailable(path, error) from error
    aside = f"{path}.damaged-{time.time_ns()}"
    with storing("move a damaged database aside"):
        for suffix in ("-wal", "-shm", "", _DAMAGED):
            if os.path.exists(path + suffix):
                os.replace(path + suffix, aside + suffix)
    on_damage(aside)
    try:
        return Database(_open(path, version, schema, since), path)
    except sqlite3.DatabaseError as error:
        raise _unavailable(path, error) from error


def _open(
    path: str, version: int, schema: str, since: Mapping[int, Sequence[str]]
) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    try:
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found > version:
            raise StoreFormatUnknown(
                f"{path} was written by a newer version of flyte-build",
                why=f"Its format is {found}; this version supports {version}.",
                hint="Upgrade flyte-build, or set FLYTE_HOME to another directory.",
            )
        if found == 0:
            _create(database, path, version, schema)
        elif found < version:
            _upgrade(database, version, schema, since)
        database.execute("PRAGMA synchronous=NORMAL")
    except BaseException:
        database.close()
        raise
    return database


def _upgrade(
    database: sqlite3.Connection, version: int, schema: str, since: Mapping[int, Sequence[str]]
) -> None:
    """Upgrade an older database; the version is read again, as another process may have done it."""
    database.execute("BEGIN IMMEDIATE")
    try:
        (found,) = database.execute("PRAGMA user_version").fetchone()
        for each in range(found, version):
            for statement in since.get(each, ()):
                database.execute(statement)
        for statement in filter(str.strip, schema.split(";")):
            database.execute(statement)
        database.execute(f"PRAGMA user_version={version}")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # A full disk has already ended the transaction.
            database.execute("ROLLBACK")
        raise


def _create(database: sqlite3.Connection, path: str, version: int, schema: str) -> None:
    # SQLite creates its other files with the same mode.
    os.chmod(path, os.stat(path).st_mode & mode_in(os.path.dirname(path)))
    journal = "DELETE" if _on_network(path) else "WAL"
    deadline = time.monotonic() + _WAIT
    # While another process changes the journal mode, SQLite reports "busy" at once, whatever the
    # timeout.
    while True:
        try:
            database.execute(f"PRAGMA journal_mode={journal}")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    database.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version={version}; COMMIT;")


def _on_network(path: str) -> bool:
    import psutil

    real = os.path.realpath(path)
    mounts = [
        mount
        for mount in psutil.disk_partitions(all=True)
        if real.startswith(mount.mountpoint.rstrip("/") + "/")
    ]
    return bool(mounts) and max(mounts, key=lambda mount: len(mount.mountpoint)).fstype in _NETWORK


def _encodable(value: Any) -> Any:
    """Escape the lone surrogates of paths that are not UTF-8 (PEP 383) for SQLite."""
    return (
        value.encode("utf-8", "backslashreplace").decode()
        if isinstance(value, str) and not value.isascii()
        else value
    )


def _is_damage(error: sqlite3.Error) -> bool:
    return "malformed" in str(error) or "not a database" in str(error)


def _unavailable(path: str, error: sqlite3.Error) -> StoreError:
    return StoreUnavailable(
        f"Cannot use the database {path}",
        why=str(error),
        hint=(
            "Run the command again: the damaged database will be replaced with a new one."
            if _is_damage(error)
            else (
                "Check that the disk is not full and that you own the directory, or set"
                " FLYTE_HOME to another one."
            )
        ),
    )
