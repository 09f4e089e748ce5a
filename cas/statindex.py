"""The stat index: the content that each path had when last read, so as not to read it again.

It is private to this machine and only ever saves work. An entry is valid if the file's size, times,
inode and mode are unchanged, and if those times lie so far before the read that any later change
must show in them (the "racily clean" entries of git's index: git,
Documentation/technical/racy-git.txt).
"""

from __future__ import annotations

import marshal
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import xxhash

from flyte_build.errors import FileUnstable

from .counters import Counters
from .database import Database
from .digest import Digest
from .hash import running_sha256

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS stat(scope TEXT NOT NULL, name BLOB NOT NULL, data BLOB NOT NULL,"
    " PRIMARY KEY(scope, name));"
)

Row = tuple[int, ...]  # mode, size in bytes, mtime and ctime in ns, inode
UNTRUSTED: Row = ()  # Equal to no file's row, so the file is read again.

_CHUNK = 1 << 20
_ATTEMPTS = 5
TICK = 20_000_000
"""Maximum delay, in ns, of a file's timestamp: kernels use a clock that ticks every 1 to 10 ms."""
_SECOND = 1_000_000_000
_COARSE = 5  # CLOCK_REALTIME_COARSE (clock_gettime(2)), which Linux uses for file times.
# Seed of each fingerprint.
_WRITER = marshal.version << 16 | sys.version_info.major << 8 | sys.version_info.minor
_SUM = 16  # Bytes of a fingerprint.


class StatIndex:
    """Values by name and scope (a directory and how it was scanned), in the cache's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, scope: str) -> dict[str, Any]:
        """Return the values of `scope`, except damaged ones and those of other Python versions."""
        rows = self._database.execute("SELECT name, data FROM stat WHERE scope=?", (scope,))
        return {
            os.fsdecode(name): marshal.loads(data[_SUM:])
            for name, data in rows
            if data[:_SUM] == fingerprint(data[_SUM:])
        }

    def save(self, scope: str, values: Mapping[str, Any], gone: Iterable[str] = ()) -> None:
        """Store `values` in `scope`, and delete the names that are `gone`.

        Values are numbers, strings, bytes, tuples, lists and dicts.
        """
        rows = [(scope, os.fsencode(name), marshal.dumps(value)) for name, value in values.items()]
        self._database.execute_many(
            "INSERT OR REPLACE INTO stat VALUES(?,?,?)",
            [(scope, name, fingerprint(data) + data) for scope, name, data in rows],
        )
        self._database.execute_many(
            "DELETE FROM stat WHERE scope=? AND name=?",
            [(scope, os.fsencode(name)) for name in gone],
        )

    def scopes(self) -> list[str]:
        """Return all scopes."""
        return [scope for (scope,) in self._database.execute("SELECT DISTINCT scope FROM stat")]

    def forget(self, scope: str) -> None:
        """Delete everything stored in `scope`."""
        self._database.execute("DELETE FROM stat WHERE scope=?", (scope,))


def fingerprint(data: bytes) -> bytes:
    """Compute the xxh3-128 of data that stays on this machine and with this Python version."""
    return xxhash.xxh3_128_digest(data, _WRITER)


row: Callable[[os.stat_result], Row] = attrgetter(
    "st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"
)
"""The fields that identify the state of a file."""


def trusted(state: Row, began: int) -> Row:
    """Return `state` if any change after `began` (ns since the epoch) would show in it.

    Return `UNTRUSTED` otherwise.
    """
    _, _, mtime, ctime, _ = state
    # The file system may store times in whole seconds, or steps of two.
    coarse = mtime % _SECOND == 0 and ctime % _SECOND == 0
    return state if max(mtime, ctime) < began - (2 * _SECOND if coarse else TICK) else UNTRUSTED


def stamp() -> int:
    """Return a lower bound, in ns, for the timestamp of a file that is changed now.

    It is the time of the kernel's coarse clock, or a little earlier.
    """
    if sys.platform == "linux":
        return time.clock_gettime_ns(_COARSE)
    return time.time_ns() - TICK


def changed_since(state: Row, moment: int) -> bool:
    """Whether a file in this state may have changed at or after a moment returned by `stamp`."""
    ctime = state[3]
    return ctime + (2 * _SECOND if ctime % _SECOND == 0 else 0) >= moment


class Reading(NamedTuple):
    """Result of reading a file: its state, `trusted` of that, its digest, and its bytes if kept."""

    state: Row
    trusted: Row
    digest: Digest
    data: bytes | None


def hash_file(
    path: str, counters: Counters, keep: int = 0, watch: Callable[[bytes], None] | None = None
) -> Reading:
    """Read and hash a regular file, keeping its bytes if there are at most `keep` of them.

    `watch` is called with every piece. A file that changes while it is read is read again;
    `FileUnstable` is raised if it keeps changing.
    """
    for _ in range(_ATTEMPTS):
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            began = time.time_ns()
            before = os.fstat(file)
            sha256, size, data = running_sha256(), 0, b""
            while piece := os.read(file, min(before.st_size - size, _CHUNK) + 1):
                sha256.update(piece)
                size += len(piece)
                if watch:
                    watch(piece)
                data = piece if size == len(piece) else b"" if size > keep else data + piece
                if size == before.st_size and size < _CHUNK:
                    break  # If the file has grown, the comparison of states below finds out.
            counters.add(files_read=1, bytes_hashed=size)
            state = row(before)
            if state == row(os.fstat(file)) and size == before.st_size:
                return Reading(
                    state,
                    trusted(state, began),
                    Digest.from_hash(sha256),
                    data if size <= keep else None,
                )
        finally:
            os.close(file)
    raise FileUnstable(
        f"{path} kept changing while it was read",
        why=f"Each of {_ATTEMPTS} attempts saw a different state.",
        hint="Stop the program that writes to it, or exclude it in `.flyteignore`.",
    )
