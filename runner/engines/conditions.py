"""The engine of conditions: an attempt ends when the condition is answered.

The answer comes from another process, or from the terminal of the command.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from flyte_build.cas.folder import make_below
from flyte_build.runner.action import Action
from flyte_build.runner.answer import give, given, question
from flyte_build.runner.result import Failure, Result
from flyte_build.values.type import Mismatch

from .protocol import Event, Waits

_LOOK = 0.2  # Seconds between two looks for answers.


class ConditionEngine:
    """Engine that asks for answers; `note` takes sentences for the user.

    `parse` returns the value of a text, given the name of its type, or raises `Mismatch`. With
    `at_terminal`, the oldest condition is also answered by a line of standard input.
    """

    name = "condition"
    acts_on = frozenset[str]()
    runs_here = False

    def __init__(
        self, note: Callable[[str], None], parse: Callable[[str, str], Any], at_terminal: bool
    ) -> None:
        self._note, self._parse, self._at_terminal = note, parse, at_terminal
        self._waiting: dict[tuple[str, int], tuple[Action, float]] = {}
        self._cancelled: list[Event] = []

    def submit(self, action: Action) -> None:
        """Begin to wait for an answer, unless that has begun already."""
        key = (action.id, action.attempt)
        if key not in self._waiting:
            self._waiting[key] = (action, time.monotonic())
            asked = action.call.inputs
            self._note(question(asked, action.run, action.id, here=self._at_terminal))

    def waits(self) -> Waits:
        """Return the terminal, and the time of the next look."""
        if not self._waiting:
            return Waits(seconds=0.0 if self._cancelled else None)
        return Waits(read=[0] if self._at_terminal else [], seconds=_LOOK)

    def events(self) -> list[Event]:
        """Return the conditions that were answered, or not in time."""
        if self._waiting and self._at_terminal:
            self._read_line()
        events, self._cancelled = self._cancelled, []
        for key, (action, since) in list(self._waiting.items()):
            name, timeout = action.call.inputs["name"], action.call.inputs["timeout"]
            answer = given(_run_folder(action), action.id)
            if answer:
                result = Result("succeeded", {"o0": answer[0]})
            elif timeout is not None and time.monotonic() - since > timeout:
                late = f"The condition {name!r} was not answered in {timeout:g} s"
                error = Failure("ConditionTimedoutError", late, is_final=True)
                result = Result("failed", error=error)
            else:
                continue
            del self._waiting[key]
            make_below(action.folder)
            result.write(action.folder)
            events.append(Event(action, "failed" if result.error else "succeeded"))
        return events

    def cancel(self, action: Action, at_once: bool) -> None:
        """Wait for the answer no longer."""
        if self._waiting.pop((action.id, action.attempt), None):
            self._cancelled.append(Event(action, "cancelled"))

    def running(self) -> list[Action]:
        """Return the conditions that wait."""
        return [action for action, _ in self._waiting.values()]

    def close(self) -> None:
        """Wait no longer."""
        self._waiting.clear()

    def _read_line(self) -> None:
        """Take a line of the terminal as the answer to the oldest condition, if there is one."""
        import select

        if not select.select([0], [], [], 0)[0]:
            return
        line = sys.stdin.readline()
        if not line:  # The end of the input: answers only come from elsewhere now.
            self._at_terminal = False
            return
        action, _ = next(iter(self._waiting.values()))
        try:
            value = self._parse(action.call.inputs["data_type"], line.strip())
        except Mismatch as error:
            self._note(f"That is not an answer. Expected: {error.expected}.")
            return
        give(_run_folder(action), action.id, value)


def _run_folder(action: Action) -> str:
    """Return the directory of a child's run."""
    return os.path.dirname(os.path.dirname(action.folder))
