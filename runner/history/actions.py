"""Actions below the root of a run, in the history's database.

The root's own state is that of its run. What the task of a child was called with, and its result,
are JSON in the database, so a child that printed nothing needs no file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from flyte_build.cas.database import Database
from flyte_build.cas.os_errors import storing
from flyte_build.runner.action import ROOT, read_action
from flyte_build.runner.result import Phase, Result
from flyte_build.values.type import Wires

from .rows import ActionRow
from .schema import CHANGE


class NewAction(NamedTuple):
    """An action that is about to wait for its turn.

    `recovered` is the name of the run whose result it takes over, or "".
    """

    id: str
    parent: str
    task: str
    group: str
    engine: str
    inputs: Wires
    recovered: str = ""


class Actions:
    """Recorder of the actions of one run.

    What happens in `commit` survives the end of this process, and a power cut if it is `durable`:
    a parent acts on the ends of children that it sees.
    """

    def __init__(self, database: Database, run: str, *, durable: bool) -> None:
        self._database, self._run = database, run
        if durable:
            database.execute("PRAGMA synchronous=FULL")

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Write everything that the body records in one transaction."""
        with self._database.transaction():
            yield

    def find(self, id: str) -> Result | None:
        """Return the result of an action, if it succeeded."""
        return _succeeded(self._database, self._run, id)

    def take_over(self, id: str, run: str, now: float) -> None:
        """Record an action of an earlier run, with its result, as one of this run."""
        with self._database.transaction():
            self._database.execute(
                'INSERT OR IGNORE INTO actions(run, name, parent, task, "group", engine, phase,'
                " attempts, queued, ended, recovered, inputs, result)"
                ' SELECT ?, name, parent, task, "group", engine, phase, 0, ?, ?, run, inputs,'
                " result FROM actions WHERE run=? AND name=?",
                (self._run, now, now, run, id),
            )
            self._changed(id, "succeeded")

    def queued(self, action: NewAction, now: float) -> None:
        """Record an action that waits, for the first time or anew; `now` is in epoch seconds."""
        self._database.execute(
            'INSERT INTO actions(run, name, parent, task, "group", engine, phase, attempts,'
            " queued, recovered, inputs) VALUES(?,?,?,?,?,?,'queued',0,?,?,?)"
            " ON CONFLICT(run, name) DO UPDATE SET phase='queued', ended=NULL, result=NULL",
            (
                self._run,
                action.id,
                action.parent,
                action.task,
                action.group,
                action.engine,
                now,
                action.recovered,
                json.dumps(dict(action.inputs)),
            ),
        )
        self._changed(action.id, "queued")

    def started(self, id: str, attempt: int, now: float) -> None:
        """Record the start of an attempt."""
        self._database.execute(
            "UPDATE actions SET phase='running', attempts=?, started=coalesce(started, ?)"
            " WHERE run=? AND name=?",
            (attempt, now, self._run, id),
        )
        self._database.execute(
            "INSERT OR REPLACE INTO attempts VALUES(?,?,?,'running',?,NULL,'')",
            (self._run, id, attempt, now),
        )
        self._changed(id, "running")

    def attempted(self, id: str, attempt: int, result: Result, now: float) -> None:
        """Record the end of an attempt, after which another one follows."""
        self._end_attempt(id, attempt, result, now)
        self._changed(id, result.phase)

    def ended(self, id: str, attempt: int, result: Result, now: float) -> None:
        """Record the end of an action with its last attempt (0: it never ran)."""
        self._end_attempt(id, attempt, result, now)
        self._database.execute(
            "UPDATE actions SET phase=?, ended=?, result=? WHERE run=? AND name=?",
            (result.phase, now, json.dumps(result.document()), self._run, id),
        )
        self._changed(id, result.phase)

    def _end_attempt(self, id: str, attempt: int, result: Result, now: float) -> None:
        self._database.execute(
            "UPDATE attempts SET phase=?, ended=?, why=? WHERE run=? AND action=? AND number=?"
            " AND ended IS NULL",
            (
                result.phase,
                now,
                result.error.message if result.error else "",
                self._run,
                id,
                attempt,
            ),
        )

    def _changed(self, id: str, what: Phase) -> None:
        self._database.execute(CHANGE, (self._run, id, what))


def read_actions(database: Database, run: str, beginning: str = "") -> list[ActionRow]:
    """Return the actions below the root of a run, in the order of their calls.

    With `beginning`, only those whose names begin with it.
    """
    return select_actions(
        database, "run=? AND name>=? AND name<?", (run, beginning, f"{beginning}\uffff")
    )


def select_actions(database: Database, where: str, values: Sequence[str]) -> list[ActionRow]:
    """Return the actions below roots for which an SQL condition holds, in the order of their calls.

    `values` are those of the condition.
    """
    rows = database.execute(
        'SELECT name, task, parent, "group", engine, phase, attempts, queued, started, ended,'
        " CASE phase WHEN 'succeeded' THEN NULL ELSE result END, recovered, rowid"
        f" FROM actions WHERE {where} ORDER BY rowid",
        values,
    )
    return [
        ActionRow._make((*row[:7], False, *row[7:10], _why(row[10]), *row[11:])) for row in rows
    ]


def _why(result: str | None) -> str:
    """Return the message of the error in a result, as JSON text, or ""."""
    return json.loads(result).get("error", {}).get("message", "") if result else ""


def read_attempts(database: Database, run: str) -> dict[str, list[tuple[float, float | None]]]:
    """Return the starts and ends of attempts by their action, in order; None if one still runs."""
    found: dict[str, list[tuple[float, float | None]]] = {}
    rows = database.execute(
        "SELECT action, started, ended FROM attempts WHERE run=? ORDER BY action, number", (run,)
    )
    for action, started, ended in rows:
        found.setdefault(action, []).append((started, ended))
    return found


def read_io(database: Database, run: str, action: str) -> tuple[Wires, Result | None]:
    """Return the inputs and the result of an action below the root; it must exist."""
    inputs, phase, result = database.one(
        "SELECT inputs, phase, result FROM actions WHERE run=? AND name=?", (run, action)
    )
    return json.loads(inputs), None if result is None else Result.parse(phase, json.loads(result))


class EarlierRun:
    """The actions that succeeded in an earlier run, whose results another run takes over.

    `folder` is the directory of that run.
    """

    def __init__(self, database: Database, run: str, folder: str) -> None:
        self._database, self.run, self._folder = database, run, folder
        self._taken: set[str] = set()

    def root(self, inputs: Wires) -> Result | None:
        """Return the result of the root, if it succeeded, and with these inputs."""
        document, result = read_action(self._folder), Result.read(self._folder)
        if document is None or result is None or result.error is not None:
            return None
        if document["inputs"] != inputs:
            return None
        self._taken.add(ROOT)
        return result

    def result(self, action: str) -> Result | None:
        """Return the result of an action below the root, if it succeeded."""
        result = _succeeded(self._database, self.run, action)
        if result is not None:
            self._taken.add(action)
        return result

    @property
    def taken(self) -> int:
        """Number of actions whose results were taken over."""
        return len(self._taken)

    def bring_checkpoint(self, action: str, folder: str) -> None:
        """Copy what an action has saved, if anything, into its directory in the other run."""
        own = self._folder if action == ROOT else f"{self._folder}/actions/{action}"
        if os.path.isdir(f"{own}/checkpoint"):
            import shutil

            with storing("copy a checkpoint"):
                shutil.copytree(f"{own}/checkpoint", f"{folder}/checkpoint", symlinks=True)

    def left(self) -> int:
        """Return how many actions that succeeded were not taken over, alone or with a caller."""
        rows = self._database.execute(
            "SELECT name, parent, phase FROM actions WHERE run=? ORDER BY rowid", (self.run,)
        )
        covered = set(self._taken)
        covered.update(name for name, parent, _ in rows if parent in covered)
        return sum(phase == "succeeded" and name not in covered for name, _, phase in rows)


def _succeeded(database: Database, run: str, action: str) -> Result | None:
    row = database.one(
        "SELECT result FROM actions WHERE run=? AND name=? AND phase='succeeded'", (run, action)
    )
    return None if row is None else Result.parse("succeeded", json.loads(row[0]))
