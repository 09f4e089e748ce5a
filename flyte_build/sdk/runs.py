"""Runs from Python: results of `flyte.run`, and earlier runs in the history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from flyte_build.declarations.interface import Interface
from flyte_build.runner.history.rows import Filter, RunRow
from flyte_build.runner.result import Failure, Phase
from flyte_build.settings.places import Places

from .actions import Action
from .blocking import Blocking, BlockingIterator, blocking, blocking_iterator
from .outputs import Outputs, opened


class Run:
    """A run, in progress or ended. `print(run)` shows its result.

    Inputs and outputs of a run that `flyte.run` returned have the types of the task's annotations.
    Those of a run that was found by name are JSON values, as `flyte -of json get io` shows them,
    since the task's own classes are not available.
    """

    def __init__(self, data: str, name: str, interface: Interface | None = None) -> None:
        self._data, self.name, self._interface = data, name, interface

    def _row(self) -> RunRow:
        with opened(self._data) as history:
            return history.get(self.name)

    def _failure(self) -> Failure | None:
        with opened(self._data) as history:
            result = history.result(self.name)
        return result.error if result else None

    @property
    def url(self) -> str:
        """URL of the run's directory."""
        with opened(self._data) as history:
            return history.url(self.name)

    @property
    def phase(self) -> Phase:
        """Current or final phase."""
        return self._row().phase

    @property
    def action(self) -> Action:
        """First action of the run: its own task."""
        return Action(self._data, self.name, interface=self._interface)

    def done(self) -> bool:
        """Whether the run has ended."""
        return self._row().ended is not None

    @blocking
    def wait(self) -> None:
        """Wait until the run has ended."""
        with opened(self._data) as history:
            history.wait(self.name)

    @blocking_iterator
    def watch(self) -> Iterator[RunRow]:
        """Yield the run's row in the history, now and after each change, until it has ended."""
        last = None
        with opened(self._data) as history:
            while last is None or last.ended is None:
                row = history.wait(self.name, 0.5)
                if row != last:
                    yield row
                last = row

    @blocking
    def details(self) -> RunRow:
        """Return the run's row in the history."""
        return self._row()

    @blocking_iterator
    def get_logs(
        self, attempt: int | None = None, max_lines: int | None = None, show_ts: bool = False
    ) -> Iterator[str]:
        """Yield the log lines of the run's task and, while the run is in progress, new ones.

        `max_lines` limits the existing ones to the last. Raises `NotFound` if there is no log.
        """
        yield from self.action.get_logs(attempt, max_lines, show_ts)

    @blocking
    def show_logs(
        self, attempt: int | None = None, max_lines: int | None = None, show_ts: bool = False
    ) -> None:
        """Print the lines of `get_logs`."""
        self.action.show_logs(attempt, max_lines, show_ts)

    @blocking
    def inputs(self) -> dict[str, Any]:
        """Return the inputs that were given to the run, without those left to their defaults."""
        return self.action.inputs()

    @blocking
    def outputs(self) -> Outputs:
        """Wait for the run, and return its outputs. Raises its error if it did not succeed."""
        return self.action.outputs()

    @blocking
    def abort(self, reason: str = "") -> None:
        """Abort the run with all its actions, and wait until it has ended.

        Raises `UsageError` if it has ended already.
        """
        self.action.abort(reason)

    @blocking
    def raise_for_status(self) -> None:
        """Wait for the run, and raise its error if it did not succeed.

        The error's `code` is the name of the type of the task's exception.
        """
        self.action.raise_for_status()

    @blocking
    def first_failure(self) -> Action | None:
        """Return the first action that did not succeed, if any.

        Calls come before the run's own task, whose error is often that of a call.
        """
        with opened(self._data) as history:
            first, *calls = history.actions(self.name)
        for row in (*calls, first):
            if row.phase in ("failed", "aborted", "timed_out"):
                return Action(self._data, self.name, row.name)
        return None

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
        """Return the run of that name. Raises `NotFound`."""
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
        """Yield the newest runs that match all given conditions, newest first."""
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
