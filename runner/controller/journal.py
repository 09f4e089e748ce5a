"""Journal of a run: what happens to its actions, in the history and for the user."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from flyte_build.runner.action import ROOT, label
from flyte_build.runner.call import Call
from flyte_build.runner.reporter import ActionChange, RunReporter, retry_text
from flyte_build.runner.result import Phase, Result

from .machine import Effect, End, Queued, Retry, Start
from .placed import Placed

if TYPE_CHECKING:
    from flyte_build.runner.history.actions import Actions, EarlierRun, NewAction


class Journal:
    """Writer of the effects of a run's machine; `placed` are its actions.

    `open_actions` opens the recorder of children. Results of `earlier` are taken over.
    """

    def __init__(
        self,
        placed: Mapping[str, Placed],
        reporter: RunReporter,
        open_actions: Callable[[], Actions],
        earlier: EarlierRun | None,
    ) -> None:
        self._placed, self._reporter = placed, reporter
        self._open_actions, self._earlier = open_actions, earlier
        self._recorder: Actions | None = None

    def write(self, effects: Sequence[Effect]) -> None:
        """Record and report effects; the root's own phases are those of the run."""
        below = [effect for effect in effects if effect.action != ROOT]
        if below:
            self._record(below)
        for effect in below:
            self._report(effect)

    def find_trace(self, id: str) -> Result | None:
        """Return the result of a traced call that succeeded, in this run or the earlier one."""
        recorder = self._own_recorder()
        found = recorder.find(id)
        if found is None and self._earlier and (found := self._earlier.result(id)):
            recorder.take_over(id, self._earlier.run, time.time())
        return found

    def save_trace(self, trace: NewAction, result: Result) -> None:
        """Record a traced call that has ended."""
        recorder, now = self._own_recorder(), time.time()
        with recorder.commit():
            recorder.queued(trace, now)
            recorder.ended(trace.id, 0, result, now)

    def _own_recorder(self) -> Actions:
        if self._recorder is None:
            self._recorder = self._open_actions()
        return self._recorder

    def _record(self, effects: Sequence[Effect]) -> None:
        from flyte_build.runner.history.actions import NewAction

        recorder, now = self._own_recorder(), time.time()
        with recorder.commit():
            for effect in effects:
                placed = self._placed[effect.action]
                match effect:
                    case Queued(id):
                        assert placed.parent is not None
                        recorder.queued(
                            NewAction(
                                id,
                                placed.parent,
                                placed.call.task.name,
                                placed.group,
                                placed.engine.name,
                                placed.call.inputs,
                                self._earlier.run if self._earlier and placed.is_known else "",
                            ),
                            now,
                        )
                    case Start(id, attempt):
                        recorder.started(id, attempt, now)
                    case Retry(id, attempt, result):
                        recorder.attempted(id, attempt, result, now)
                    case End(id, attempt, result):
                        recorder.ended(id, attempt, result, now)

    def _report(self, effect: Effect) -> None:
        phase: Phase
        why = ""
        match effect:
            case Queued():
                phase = "queued"
            case Start():
                phase = "running"
            case End(_, _, result):
                phase = result.phase
                if result.error:
                    why = f"{result.error.type}: {result.error.message}".partition("\n")[0]
            case _:
                return
        placed = self._placed[effect.action]
        self._reporter.action_changed(
            ActionChange(
                effect.action, placed.parent or "", placed.call.task.name, placed.group, phase, why
            )
        )

    def say_retry(self, effect: Retry, call: Call) -> None:
        """Tell the user that an attempt has failed, and another one follows."""
        operational = call.task.operational
        which = "" if effect.action == ROOT else f"{label(operational.short_name, effect.action)}: "
        text = retry_text(effect.attempt, operational.retries + 1, effect.result, effect.wait)
        self._reporter.note(which + text)
