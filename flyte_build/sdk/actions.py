"""Actions of runs from Python: the run's own task, and all that it has called."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from flyte_build.declarations.interface import Interface
from flyte_build.ops.abort import abort, abort_action, open_log
from flyte_build.runner.action import ROOT
from flyte_build.runner.history.rows import ActionRow
from flyte_build.runner.result import Phase, Result
from flyte_build.settings.places import Places

from .blocking import Blocking, BlockingIterator, blocking, blocking_iterator
from .outputs import Outputs, loaded, opened, raise_error


class Action:
    """An action of a run, in progress or ended.

    Inputs and outputs are JSON values, as `flyte -of json get io` shows them, except those of the
    first action of a run that `flyte.run` returned.
    """

    def __init__(
        self, data: str, run_name: str, name: str = ROOT, interface: Interface | None = None
    ) -> None:
        self._data, self.run_name, self.name, self._interface = data, run_name, name, interface

    @property
    def task_name(self) -> str:
        """Full name of the task."""
        return self._row().task

    @property
    def phase(self) -> Phase:
        """Current or final phase."""
        return self._row().phase

    @property
    def parent(self) -> str | None:
        """Name of the action that has called it; None for the first action of a run."""
        return self._row().parent

    parent_name = parent

    @property
    def group(self) -> str:
        """Name of the group or the map that the call belongs to, or ""."""
        return self._row().group

    @property
    def attempts(self) -> int:
        """Number of attempts so far."""
        return self._row().attempts

    @property
    def start_time(self) -> datetime | None:
        """Start of the first attempt, in UTC; None if there is none yet."""
        started = self._row().started
        return None if started is None else datetime.fromtimestamp(started, UTC)

    @property
    def error_message(self) -> str:
        """Message of the error, or ""."""
        return self._row().why

    @blocking
    def details(self) -> ActionRow:
        """Return the action's row in the history."""
        return self._row()

    def done(self) -> bool:
        """Whether the action has ended."""
        return self._row().ended is not None

    @blocking
    def wait(self) -> None:
        """Wait until the action has ended."""
        self._wait()

    @blocking_iterator
    def get_logs(
        self, attempt: int | None = None, max_lines: int | None = None, show_ts: bool = False
    ) -> Iterator[str]:
        """Yield the lines of the action's log and, until it has ended, new ones.

        `max_lines` limits the existing ones to the last. Raises `NotFound` if there is no log.
        """
        with opened(self._data) as history:
            log = open_log(history, self.run_name, attempt, follow=True, action=self.name)
            if max_lines is not None:
                log.skip_to_last(max_lines)
            for line in log.lines():
                moment = datetime.fromtimestamp(line.time).astimezone()
                stamp = f"{moment:%Y-%m-%d %H:%M:%S} " if show_ts else ""
                yield stamp + line.data.decode(errors="replace")

    @blocking
    def show_logs(
        self, attempt: int | None = None, max_lines: int | None = None, show_ts: bool = False
    ) -> None:
        """Print the lines of `get_logs`."""
        for line in self.get_logs(attempt, max_lines, show_ts):
            print(line, file=sys.stdout)

    @blocking
    def inputs(self) -> dict[str, Any]:
        """Return the inputs that were given to the call."""
        with opened(self._data) as history:
            wire = dict(history.io(self.run_name, self.name)[0])
        return self._interface.load_inputs(wire) if self._interface else wire

    @blocking
    def outputs(self) -> Outputs:
        """Wait for the action, and return its outputs. Raises its error if it did not succeed."""
        self._raise_for_status()
        result = self._result()
        return loaded(result.outputs if result else {}, self._interface)

    @blocking
    def raise_for_status(self) -> None:
        """Wait for the action, and raise its error if it did not succeed.

        The error's `code` is the name of the type of the task's exception.
        """
        self._raise_for_status()

    @blocking
    def abort(self, reason: str = "") -> None:
        """Abort the action with all that it has called, and wait until it has ended.

        Its caller receives `ActionAbortedError`; the first action of a run is aborted with the run.
        Raises `UsageError` if it has ended already.
        """
        with opened(self._data) as history:
            if self.name == ROOT:
                abort(history, self.run_name, reason)
            else:
                abort_action(history, self.run_name, self.name, reason)

    def __repr__(self) -> str:
        row = self._row()
        return f"<action {self.name} of the run {self.run_name}: {row.task} {row.phase}>"

    def _row(self) -> ActionRow:
        with opened(self._data) as history:
            return history.find_action(self.run_name, self.name)

    def _wait(self) -> ActionRow:
        with opened(self._data) as history:
            return history.wait_for_action(self.run_name, self.name)

    def _result(self) -> Result | None:
        with opened(self._data) as history:
            return history.action_result(self.run_name, self.name)

    def _raise_for_status(self) -> None:
        row = self._wait()
        if row.phase != "succeeded":
            result = self._result()
            child = "" if self.name == ROOT else f"action {self.name} of the "
            raise_error(f"The {child}run {self.run_name}", row, result.error if result else None)

    @staticmethod
    def _get(*, run_name: str, name: str = ROOT) -> Action:
        """Return an action of a run by its name, or by a beginning of it that no other one has.

        Raises `NotFound`.
        """
        data = Places.find().data
        with opened(data) as history:
            return Action(data, run_name, history.find_action(run_name, name).name)

    @staticmethod
    def _listall(
        for_run_name: str,
        in_phase: Phase | Sequence[Phase] | None = None,
        parent_name: str | None = None,
    ) -> Iterator[Action]:
        """Yield the actions of a run that match all given conditions, in the order of their calls.

        The run's own task comes first. Raises `NotFound` if there is no such run.
        """
        phases = (in_phase,) if isinstance(in_phase, str) else in_phase
        data = Places.find().data
        with opened(data) as history:
            rows = history.actions(for_run_name)
        for row in rows:
            if (phases is None or row.phase in phases) and parent_name in (None, row.parent):
                yield Action(data, for_run_name, row.name)

    get = Blocking(_get)
    listall = BlockingIterator(_listall)
