"""A run and its actions as the history knows them, and which runs are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, get_args

from flyte_build.errors import NotFound
from flyte_build.runner.result import Phase

PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True)
class ActionRow:
    """An action of a run as the history knows it."""

    name: str
    task: str
    parent: str | None
    phase: Phase
    attempts: int
    cached: bool
    started: float
    ended: float | None


@dataclass(frozen=True)
class RunRow:
    """A run as the history knows it. Times are seconds since the epoch; `user` is a number, `tree`
    the digest of its code.

    Both are empty where they are not known: a run from the working tree has no tree.
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

    def actions(self) -> list[ActionRow]:
        """Its actions: the root alone, since a task that calls tasks runs them in its
        own process.
        """
        return [
            ActionRow(
                "a0", self.task, None, self.phase, self.attempts, False, self.started, self.ended
            )
        ]

    def action(self, name: str) -> ActionRow:
        """The action of that name. Raises `NotFound`."""
        for action in self.actions():
            if action.name == name:
                return action
        raise NotFound(
            f"The run {self.name} has no action {name!r}",
            why=f"It has {', '.join(action.name for action in self.actions())}.",
        )


COLUMNS = ", ".join(column.name for column in fields(RunRow))


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which runs are wanted: those for which all that is given holds. Times are seconds since the
    epoch.
    """

    phases: tuple[Phase, ...] = ()
    task: str | None = None
    version: str | None = None
    user: int | None = None
    after: float | None = None
    before: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def query(self, limit: int) -> tuple[str, list[Any]]:
        """The statement that finds the newest of them, newest first, and its values."""
        tests = [
            ("task = ?", self.task),
            ("version = ?", self.version),
            ("user = ?", self.user),
            ("started >= ?", self.after),
            ("started < ?", self.before),
        ]
        given = [(test, [value]) for test, value in tests if value is not None]
        # The `+` makes SQLite walk along the other index, not look every labelled run up and sort
        # them all.
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
    """A time as text: ISO 8601, UTC, milliseconds."""
    return (
        datetime.fromtimestamp(seconds, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
