"""The history of runs: a database and a directory for each run, in the data directory.

Every run ends in a terminal phase. A command holds a lock on its run's directory while it lives; a
run that has not ended, whose lock nobody holds, was orphaned, and whoever finds it says so in the
history.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flyte_build.cas.database import Database
from flyte_build.cas.digest import Digest
from flyte_build.cas.folder import PRIVATE, make_below, make_own
from flyte_build.cas.lease import lockable
from flyte_build.cas.os_errors import storing
from flyte_build.errors import NotFound, RunExists
from flyte_build.runner.action import read_action
from flyte_build.runner.result import Failure, Result
from flyte_build.text.wording import nearest

from .schema import open_tables

if TYPE_CHECKING:
    from flyte_build.runner.call import Call

    from .rows import Filter, RunRow

FORMAT = 1
_ALPHABET = "0123456789abcdefghijkmnpqrstuvwxyz"
_LOOK = 0.1  # Seconds between two looks at a run that others carry out.
_LOST = Failure("RuntimeSystemError", "lost: the command that ran it ended before it did", "lost")


class History:
    """The runs below one data directory."""

    def __init__(self, folder: str, database: Database) -> None:
        self.folder, self._database = folder, database
        self._locks: dict[str, int] = {}

    @classmethod
    def open(cls, folder: str, note: Callable[[str], None]) -> History:
        """Open the history in the data directory, made if it is new; `note` is told of damage that
        was repaired. Raises `StoreUnavailable`.
        """
        own = f"{folder}/v{FORMAT}"
        if not os.path.isdir(f"{own}/runs"):
            with storing("make the data directory"):
                make_own(folder)
                make_below(own)
                # Inputs and outputs are nobody else's.
                os.makedirs(f"{own}/runs", mode=PRIVATE, exist_ok=True)

        def damaged(aside: str) -> None:
            note(
                f"The history's database was damaged; it was moved to {aside}. The runs' folders"
                " are untouched."
            )

        return cls(own, open_tables(f"{own}/history.sqlite", damaged))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    @property
    def identity(self) -> str:
        """What tells this history from those of other users and machines: a short text
        for labels.
        """
        state = os.stat(self.folder)
        return Digest.of(
            f"{os.path.realpath(self.folder)} {state.st_dev} {state.st_ino}".encode()
        ).short

    def run_folder(self, name: str) -> str:
        """Where a run's action, log and result are."""
        return f"{self.folder}/runs/{name}"

    def url(self, name: str) -> str:
        """The same as a URL."""
        return f"file://{self.run_folder(name)}"

    def begin(self, call: Call) -> str:
        """Begin a run of a call, and give its name, which is made if the call says none. Raises
        `RunExists`.
        """
        options = call.run
        name = options.name or _new_name()
        folder = self.run_folder(name)
        with storing("make the run's directory"):
            try:
                os.mkdir(folder, PRIVATE)
            except FileExistsError:
                raise RunExists(
                    f"There is a run {name!r} already", hint="Give another `--name`, or none."
                ) from None
            lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        self._locks[name] = lock
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO runs(name, task, file, project, domain, version, phase, why, attempts,"
                " started, user, tree) VALUES(?,?,?,?,?,?,'running','',1,?,?,?)",
                (
                    name,
                    call.task.name,
                    call.workspace.file,
                    options.project,
                    options.domain,
                    options.version,
                    time.time(),
                    os.getuid(),
                    call.tree,
                ),
            )
            for label in options.labels.items():
                self._database.execute("INSERT INTO labels VALUES(?,?,?)", (name, *label))
        return name

    def end(self, name: str, result: Result, attempts: int = 1) -> None:
        """End a run, once: a run that has ended stays as it is. An error is written into its
        directory too.
        """
        error = result.error
        self._database.execute(
            "UPDATE runs SET phase=?, why=?, attempts=?, ended=? WHERE name=? AND ended IS NULL",
            (result.phase, error.message if error else "", attempts, time.time(), name),
        )
        (ended,) = self._database.one("SELECT changes()")
        if ended and error is not None and os.path.isdir(self.run_folder(name)):
            with storing("write the run's result"):
                result.write(self.run_folder(name))
        if name in self._locks:
            os.close(self._locks.pop(name))

    def end_orphans(self) -> list[str]:
        """End every run whose command is gone; returns the names of those that were lost."""
        rows = self._database.execute("SELECT name FROM runs WHERE ended IS NULL")
        return [name for (name,) in rows if self._end_orphan(name)]

    def _end_orphan(self, name: str) -> bool:
        """Whether a run that has not ended was lost; one whose task had succeeded already has
        succeeded.
        """
        if name in self._locks or not self._orphaned(name):
            return False
        result = Result.read(self.run_folder(name))
        lost = result is None or result.error is not None
        self.end(name, Result("failed", error=_LOST) if lost else Result("succeeded"))
        return lost

    def _orphaned(self, name: str) -> bool:
        try:
            lock = os.open(f"{self.run_folder(name)}/lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            return lockable(lock)
        finally:
            os.close(lock)

    def get(self, name: str) -> RunRow:
        """The run of that name. Raises `NotFound`."""
        from .rows import COLUMNS, RunRow

        row = self._database.one(f"SELECT {COLUMNS} FROM runs WHERE name=?", (name,))
        if row is None:
            near = nearest(name, [each.name for each in self.list(1000)])
            raise NotFound(
                f"There is no run {name!r}",
                hint=f"Did you mean {near!r}?" if near else "`flyte get run` lists them.",
            )
        return RunRow(*row)

    def going(self, name: str) -> bool:
        """Whether a run has not ended yet; one whose command is gone ends here."""
        row = self.get(name)
        return row.ended is None and not self._end_orphan(name) and self.get(name).ended is None

    def wait(self, name: str, seconds: float | None = None) -> RunRow:
        """Wait until a run has ended, or for some seconds. Raises `NotFound`."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.going(name) and (deadline is None or time.monotonic() < deadline):
            time.sleep(_LOOK)
        return self.get(name)

    def labels(self, name: str) -> dict[str, str]:
        """A run's labels."""
        return dict(
            self._database.execute(
                "SELECT key, value FROM labels WHERE run=? ORDER BY key", (name,)
            )
        )

    def action(self, name: str) -> dict[str, Any]:
        """The document of what was run. Raises `NotFound`."""
        document = read_action(self.run_folder(name))
        if document is None:
            raise NotFound(
                f"What the run {name} was given is not known",
                why="It ended before its task began, or its directory was removed.",
            )
        return document

    def result(self, name: str) -> Result | None:
        """What came of a run; None if nothing has yet."""
        return Result.read(self.run_folder(name))

    def list(self, limit: int, wanted: Filter | None = None) -> list[RunRow]:
        """The newest runs that are wanted (None: all are), newest first."""
        from .rows import Filter, RunRow

        return [RunRow(*row) for row in self._database.execute(*(wanted or Filter()).query(limit))]


def _new_name() -> str:
    """A name that sorts by time: milliseconds, then chance."""
    number = time.time_ns() // 1_000_000 << 20 | int.from_bytes(os.urandom(3), "big") >> 4
    digits = ""
    while number:
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return "r" + digits
