"""Runs and actions in the history, and filters for runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple, get_args

from flyte_build.runner.action import ROOT
from flyte_build.runner.result import Phase

PHASES: tuple[Phase, ...] = get_args(Phase)


class ActionRow(NamedTuple):
    """An action of a run in the history.

    Times are seconds since the epoch; `started` is None if it never ran. `why` is the message of
    its error, or "", `recovered_from` the run that its result was taken from, or "". Actions are
    called in the order of their `place`.
    """

    name: str
    task: str
    parent: str | None
    group: str
    engine: str
    phase: Phase
    attempts: int
    cached: bool
    queued: float
    started: float | None
    ended: float | None
    why: str
    recovered_from: str = ""
    place: int = 0


@dataclass(frozen=True)
class RunRow:
    """A run in the history.

    Times are seconds since the epoch. `user` is a user id (None: unknown), and `tree` the digest of
    the run's code ("" if it ran from the working tree, or if that is unknown).
    """

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
    user: int | None
    tree: str

    def root(self) -> ActionRow:
        """Return the run's root action."""
        return ActionRow(
            name=ROOT,
            task=self.task,
            parent=None,
            group="",
            engine="",
            phase=self.phase,
            attempts=self.attempts,
            cached=False,
            queued=self.started,
            started=self.started,
            ended=self.ended,
            why=self.why,
        )


COLUMNS = ", ".join(column.name for column in fields(RunRow))


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Conditions that runs must meet, all of them; times are seconds since the epoch."""

    phases: tuple[Phase, ...] = ()
    task: str | None = None
    version: str | None = None
    user: int | None = None
    after: float | None = None
    before: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def query(self, limit: int) -> tuple[str, list[Any]]:
        """Return a statement for the newest matching runs, newest first, and its values."""
        tests = [
            ("task = ?", self.task),
            ("version = ?", self.version),
            ("user = ?", self.user),
            ("started >= ?", self.after),
            ("started < ?", self.before),
        ]
        given = [(test, [value]) for test, value in tests if value is not None]
        # The `+` makes SQLite scan the other index, instead of looking up and sorting all labelled
        # runs.
        given += [
            ("+name IN (SELECT run FROM labels WHERE key = ? AND value = ?)", [*label])
            for label in self.labels.items()
        ]
        if self.phases:
            given.append((f"phase IN ({', '.join('?' * len(self.phases))})", [*self.phases]))
        where = "WHERE " + " AND ".join(test for test, _ in given) if given else ""
        values = [value for _, each in given for value in each]
        return f"SELECT {COLUMNS} FROM runs {where} ORDER BY started DESC, rowid DESC LIMIT ?", [
            *values,
            limit,
        ]


def iso(seconds: float) -> str:
    """Return a time in ISO 8601, in UTC, with milliseconds."""
    return (
        datetime.fromtimestamp(seconds, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
