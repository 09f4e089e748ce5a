"""Runs from Python: what the history holds. A run that `flyte.run` gives and one found by name are
the same class.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from flyte_build.declarations.interface import Interface
from flyte_build.errors import (
    ActionAbortedError,
    BaseRuntimeError,
    InputError,
    OOMError,
    RuntimeSystemError,
    RuntimeUserError,
    TaskTimeoutError,
)
from flyte_build.graph.reporter import Reporter
from flyte_build.ops.abort import abort, open_log
from flyte_build.runner.history.history import History
from flyte_build.runner.history.rows import ActionRow, Filter, RunRow
from flyte_build.runner.result import Failure, Phase, Result
from flyte_build.settings.places import Places

from .blocking import Blocking, BlockingIterator, blocking, blocking_iterator

_ERRORS = {"OOMError": OOMError, "TaskTimeoutError": TaskTimeoutError}


class Outputs(tuple[Any, ...]):
    """A run's outputs, in order and by name."""

    def __new__(cls, values: Sequence[Any], names: list[str]) -> Outputs:
        outputs = super().__new__(cls, values)
        outputs._names = names
        return outputs

    _names: list[str]

    @property
    def named_outputs(self) -> dict[str, Any]:
        """The outputs by name."""
        return dict(zip(self._names, self, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """The outputs by name."""
        return self.named_outputs


class Run:
    """A run, under way or ended. `print(run)` shows its result.

    One that `flyte.run` gave has the values that the task's annotations say; one that was found by
    name has JSON values, as `flyte -of json get io` shows them, since the task's own classes are
    not at hand.
    """

    def __init__(self, data: str, name: str, interface: Interface | None = None) -> None:
        self._data, self.name, self._interface = data, name, interface

    def _row(self) -> RunRow:
        with opened(self._data) as history:
            return history.get(self.name)

    def _result(self) -> Result | None:
        with opened(self._data) as history:
            return history.result(self.name)

    def _failure(self) -> Failure | None:
        result = self._result()
        return result.error if result else None

    @property
    def url(self) -> str:
        """Where the run's own directory is, as a URL."""
        with opened(self._data) as history:
            return history.url(self.name)

    @property
    def phase(self) -> Phase:
        """The phase that it is in, or in which it ended."""
        return self._row().phase

    @property
    def action(self) -> ActionRow:
        """Its root action."""
        return self._row().actions()[0]

    def done(self) -> bool:
        """Whether it has ended."""
        return self._row().ended is not None

    @blocking
    def wait(self) -> None:
        """Wait until it has ended."""
        with opened(self._data) as history:
            history.wait(self.name)

    @blocking_iterator
    def watch(self) -> Iterator[RunRow]:
        """What the history says of it, now and at each change, until it has ended."""
        last = None
        with opened(self._data) as history:
            while last is None or last.ended is None:
                row = history.wait(self.name, 0.5)
                if row != last:
                    yield row
                last = row

    @blocking
    def details(self) -> RunRow:
        """What the history says of it."""
        return self._row()

    @blocking_iterator
    def get_logs(
        self, attempt: int | None = None, max_lines: int | None = None, show_ts: bool = False
    ) -> Iterator[str]:
        """The lines that its task wrote (the last `max_lines` of them) and, while it is under way,
        those that come.

        Raises `NotFound` if nothing was kept.
        """
        with opened(self._data) as history:
            log = open_log(history, self.name, attempt, follow=True)
            if max_lines is not None:
                log.skip_to_last(max_lines)
            for line in log.lines():
                yield (
                    f"{datetime.fromtimestamp(line.time).astimezone():%Y-%m-%d %H:%M:%S} "
                    if show_ts
                    else ""
                ) + line.data.decode(errors="replace")

    @blocking
    def show_logs(
        self, attempt: int | None = None, max_lines: int | None = None, show_ts: bool = False
    ) -> None:
        """Print what `get_logs` gives."""
        for line in self.get_logs(attempt, max_lines, show_ts):
            print(line, file=sys.stdout)

    @blocking
    def inputs(self) -> dict[str, Any]:
        """The inputs that it was given; those that were left to their defaults are not
        among them.
        """
        with opened(self._data) as history:
            wire: dict[str, Any] = history.action(self.name)["inputs"]
        return self._interface.load_inputs(wire) if self._interface else wire

    @blocking
    def outputs(self) -> Outputs:
        """What the task returned; waits for its end. Raises the run's error if it did
        not succeed.
        """
        self.raise_for_status()
        result = self._result()
        wire = dict(result.outputs) if result else {}
        if self._interface is None:
            return Outputs(tuple(wire.values()), list(wire))
        return Outputs(
            self._interface.load_outputs(wire), [name for name, _ in self._interface.outputs]
        )

    @blocking
    def abort(self, reason: str = "") -> None:
        """Ask it to end, with all that it has started, and wait until it has. Raises `UsageError`
        if it had ended before.
        """
        with opened(self._data) as history:
            abort(history, self.name, reason)

    def raise_for_status(self) -> None:
        """Wait for its end, and raise the error of a run that did not succeed; `code` is the name
        of the exception's type.
        """
        self.wait()
        row, error = self._row(), self._failure()
        if row.phase == "aborted":
            raise ActionAbortedError(f"The run {self.name} was aborted", why=row.why)
        if error is not None and error.kind == "input":
            raise InputError(f"{row.task}: {error.message}", why=error.traceback, hint=error.hint)
        if row.phase != "succeeded" and error is not None:
            fallback = RuntimeUserError if error.kind == "user" else RuntimeSystemError
            kind: type[BaseRuntimeError] = _ERRORS.get(error.type, fallback)
            raise kind(
                f"{row.task}: {error.type}: {error.message}",
                code=error.type,
                why=error.traceback,
            )
        if row.phase != "succeeded":
            raise RuntimeSystemError(f"{row.task}: {row.phase}", why=row.why)

    def first_failure(self) -> ActionRow | None:
        """The first of its actions that did not succeed, if one has failed."""
        return next(
            (
                action
                for action in self._row().actions()
                if action.phase in ("failed", "aborted", "timed_out")
            ),
            None,
        )

    def __str__(self) -> str:
        row = self._row()
        if row.ended is None:
            return row.phase
        if row.phase != "succeeded":
            error = self._failure()
            return f"{row.phase}: {error.type}: {error.message}" if error else row.phase
        values = self.outputs()
        return str(values[0]) if len(values) == 1 else str(values.to_dict()) if values else "None"

    def __repr__(self) -> str:
        return f"<run {self.name} {self.phase}>"

    @staticmethod
    def _get(name: str) -> Run:
        """The run of that name. Raises `NotFound`."""
        data = Places.find().data
        with opened(data) as history:
            history.get(name)
        return Run(data, name)

    @staticmethod
    def _listall(
        in_phase: Phase | Sequence[Phase] | None = None,
        task_name: str | None = None,
        task_version: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        with_labels: Mapping[str, str] | None = None,
        limit: int = 100,
    ) -> Iterator[Run]:
        """The newest runs for which all that is given holds, newest first."""
        wanted = Filter(
            phases=(in_phase,) if isinstance(in_phase, str) else tuple(in_phase or ()),
            task=task_name,
            version=task_version,
            after=created_after.timestamp() if created_after else None,
            before=created_before.timestamp() if created_before else None,
            labels=with_labels or {},
        )
        data = Places.find().data
        with opened(data) as history:
            rows = history.list(limit, wanted)
        yield from (Run(data, row.name) for row in rows)

    get = Blocking(_get)
    listall = BlockingIterator(_listall)


@contextmanager
def opened(data: str) -> Iterator[History]:
    """The history below a data directory, closed at the end."""
    history = History.open(data, Reporter().note)
    try:
        yield history
    finally:
        history.close()
