"""The history of runs: a database and a folder for each run, in the data folder.

Every run ends in a terminal phase. A command holds a lock on its run's folder while it lives; a run that has not ended,
whose lock nobody holds, was orphaned, and whoever finds it says so in the history.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from flyte_build.cas.database import open_database
from flyte_build.cas.faults import storing
from flyte_build.cas.lease import lockable
from flyte_build.errors import NotFound, RunExists

FORMAT = 1
Phase = Literal["queued", "running", "succeeded", "failed", "aborted", "timed_out"]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs(
  name TEXT PRIMARY KEY, task TEXT NOT NULL, file TEXT NOT NULL, project TEXT NOT NULL, domain TEXT NOT NULL,
  version TEXT NOT NULL, phase TEXT NOT NULL, why TEXT NOT NULL, attempts INTEGER NOT NULL, started REAL NOT NULL, ended REAL);
CREATE INDEX IF NOT EXISTS runs_started ON runs(started);
CREATE INDEX IF NOT EXISTS runs_open ON runs(phase) WHERE ended IS NULL;
"""
_ALPHABET = "0123456789abcdefghijkmnpqrstuvwxyz"


@dataclass(frozen=True)
class RunRow:
    """A run as the history knows it. Times are seconds since the epoch."""

    name: str
    task: str
    file: str
    project: str
    domain: str
    version: str
    phase: Phase
    why: str
    attempts: int
    started: float
    ended: float | None


class History:
    """The runs below one data folder."""

    def __init__(self, folder: str, said: Callable[[str], None]) -> None:
        self.folder = f"{folder}/v{FORMAT}"
        with storing("make the data folder"):
            os.makedirs(f"{self.folder}/runs", exist_ok=True)
        self._database = open_database(
            f"{self.folder}/history.sqlite",
            FORMAT,
            _SCHEMA,
            lambda aside: said(f"The history's database was damaged; it was moved to {aside}. The runs' folders are untouched."),
        )
        self._locks: dict[str, int] = {}

    def run_folder(self, name: str) -> str:
        """Where a run's action, log and result are."""
        return f"{self.folder}/runs/{name}"

    def begin(self, task: str, file: str, project: str, domain: str, version: str, name: str | None) -> str:
        """Begin a run; its name is made if none is given. Raises `RunExists`."""
        name = name or _new_name()
        folder = self.run_folder(name)
        with storing("make the run's folder"):
            try:
                os.mkdir(folder)
            except FileExistsError:
                raise RunExists(f"There is a run {name!r} already", hint="Give another `--name`, or none.") from None
            lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        self._locks[name] = lock
        self._database.execute(
            "INSERT INTO runs VALUES(?,?,?,?,?,?,'running','',1,?,NULL)", (name, task, file, project, domain, version, time.time())
        )
        return name

    def end(self, name: str, phase: Phase, why: str = "", attempts: int = 1) -> None:
        """End a run, once: a run that has ended stays as it is."""
        self._database.execute(
            "UPDATE runs SET phase=?, why=?, attempts=?, ended=? WHERE name=? AND ended IS NULL", (phase, why, attempts, time.time(), name)
        )
        if name in self._locks:
            os.close(self._locks.pop(name))

    def end_orphans(self) -> list[str]:
        """Say of every run whose command is gone that it failed; returns their names."""
        orphans = []
        rows = self._database.execute("SELECT name FROM runs WHERE ended IS NULL")
        for (name,) in rows:
            if name in self._locks or not self._orphaned(name):
                continue
            self.end(name, "failed", "lost: the command that ran it ended before it did")
            orphans.append(name)
        return orphans

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
        row = self._database.one("SELECT * FROM runs WHERE name=?", (name,))
        if row is None:
            from difflib import get_close_matches

            near = get_close_matches(name, [each.name for each in self.list(1000)], 1)
            raise NotFound(f"There is no run {name!r}", hint=f"Did you mean {near[0]!r}?" if near else "`flyte get run` lists them.")
        return RunRow(*row)

    def result(self, name: str) -> dict[str, Any]:
        """What the run's worker wrote as its result (`phase`, `outputs` or `error`); empty if it wrote none."""
        try:
            with open(f"{self.run_folder(name)}/result.json", encoding="utf-8") as file:
                result: dict[str, Any] = json.load(file)
                return {key: value for key, value in result.items() if key != "phase"}
        except (OSError, ValueError):
            return {}

    def list(self, limit: int) -> "list[RunRow]":
        """The newest runs, newest first."""
        rows = self._database.execute("SELECT * FROM runs ORDER BY started DESC, rowid DESC LIMIT ?", (limit,))
        return [RunRow(*row) for row in rows]


def _new_name() -> str:
    """A name that sorts by time: milliseconds, then chance."""
    number = time.time_ns() // 1_000_000 << 20 | int.from_bytes(os.urandom(3), "big") >> 4
    digits = ""
    while number:
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return "r" + digits
