"""Answering conditions of runs that go on."""

from __future__ import annotations

from typing import Any

from flyte_build.builtin.condition import parse
from flyte_build.errors import InputError, NotFound, UsageError
from flyte_build.runner.action import CONDITION
from flyte_build.runner.answer import give
from flyte_build.runner.history.history import History
from flyte_build.runner.history.rows import ActionRow
from flyte_build.values.type import Mismatch


def signal_condition(history: History, run: str, name: str, text: str) -> tuple[ActionRow, Any]:
    """Answer a condition of a run, and return its action with the value.

    `name` is the condition's name, or the beginning of its action's id; `text` is the value as on a
    command line. Raises `NotFound`, `InputError`, and `UsageError` if it was answered already.
    """
    action = _find(history, run, name)
    inputs, _ = history.io(run, action.name)
    try:
        value = parse(inputs["data_type"], text)
    except Mismatch as error:
        raise InputError(
            f"The answer to {inputs['name']!r} cannot be {text!r:.100}",
            why=f"Expected: {error.expected}.",
        ) from None
    if action.ended is not None or not give(history.run_folder(run), action.name, value):
        raise UsageError(
            f"The condition {inputs['name']!r} of {run} was answered already",
            why=f"Its phase is {action.phase}.",
        )
    return action, value


def _find(history: History, run: str, name: str) -> ActionRow:
    conditions = [each for each in history.actions(run) if each.task.startswith(f"{CONDITION}.")]
    named = [each for each in conditions if history.io(run, each.name)[0]["name"] == name]
    found = named or [each for each in conditions if each.name.startswith(name)]
    if len(found) != 1:
        shown = ", ".join(f"{history.io(run, e.name)[0]['name']} ({e.name})" for e in conditions)
        raise NotFound(
            f"{'Several conditions' if found else 'No condition'} named {name!r} in the run {run}",
            why=f"It has: {shown}." if shown else "It has no conditions.",
        )
    return found[0]
