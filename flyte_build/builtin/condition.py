"""`flyte.new_condition`: a step of a run that ends when somebody answers it.

It is an action of its own, so it survives kills, and a recovered run takes over its answer. In a
prepared run, the controller waits for the answer, and no worker does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from flyte_build.declarations.context import ctx
from flyte_build.declarations.environment import TaskEnvironment
from flyte_build.errors import ConditionTimedoutError, RuntimeUserError
from flyte_build.runner.action import CONDITION
from flyte_build.runner.answer import given, question
from flyte_build.values.annotations import type_of
from flyte_build.values.type import Mismatch

env = TaskEnvironment(name=CONDITION)
TYPES: dict[str, type] = {each.__name__: each for each in (bool, int, float, str)}
_LOOK = 0.2  # Seconds between two looks for an answer.


def parse(data_type: str, text: str) -> Any:
    """Return the answer that a text is. Raises `Mismatch`."""
    return type_of(TYPES[data_type]).parse(text)


@env.task
def wait(name: str, prompt: str, data_type: str, description: str, timeout: float | None) -> Any:
    """Wait in this process: at its terminal, or for another process's answer."""
    own = ctx()
    assert own.action is not None and own.output_path is not None
    if sys.stdin is not None and sys.stdin.isatty():
        while True:
            try:
                return parse(data_type, input(f"{prompt} [{data_type}] "))
            except Mismatch as error:
                print(f"Expected: {error.expected}.", file=sys.stderr)
    inputs = {"name": name, "prompt": prompt, "data_type": data_type}
    asked = question(inputs, own.action.run_name, own.action.name)
    print(f"note: {asked}", file=sys.stderr, flush=True)
    until = None if timeout is None else time.monotonic() + timeout
    while not (answer := given(own.output_path, own.action.name)):
        if until is not None and time.monotonic() > until:
            raise ConditionTimedoutError(
                f"The condition {name!r} was not answered in {timeout:g} s"
            )
        time.sleep(_LOOK)
    return answer[0]


@dataclass(frozen=True)
class ConditionWebhook:
    """URL to notify of a condition, and what to send. It is accepted, but nothing is sent yet."""

    url: str
    payload: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Condition:
    """A condition of a run; `wait` returns its answer, a value of `data_type`."""

    name: str
    prompt: str = "Approve?"
    prompt_type: Literal["text", "markdown"] = "text"
    data_type: type = bool
    description: str = ""
    timeout: timedelta | float | None = None
    webhook: ConditionWebhook | None = None

    def __post_init__(self) -> None:
        if self.data_type not in TYPES.values():
            raise TypeError(
                f"data_type must be bool, int, float or str, not {self.data_type!r:.100}"
            )
        if self.webhook is not None and not isinstance(self.webhook, ConditionWebhook):
            raise TypeError(f"webhook must be a ConditionWebhook, not {self.webhook!r:.100}")
        if (seconds := self._seconds) is not None and seconds <= 0:
            raise ValueError(f"timeout must be positive, not {self.timeout}")

    @property
    def wait(self) -> _Wait:
        """Function that waits for the answer, with the form `wait.aio()` for coroutines.

        It raises `ConditionTimedoutError`, and `RuntimeUserError` outside of a task.
        """
        return _Wait(self._inputs())

    @property
    def _seconds(self) -> float | None:
        if isinstance(self.timeout, timedelta):
            return self.timeout.total_seconds()
        return None if self.timeout is None else float(self.timeout)

    def _inputs(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "prompt": self.prompt,
            "data_type": self.data_type.__name__,
            "description": self.description,
            "timeout": self._seconds,
        }


class _Wait:
    """Function that waits for an answer."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        self._inputs = inputs

    def __call__(self) -> Any:
        """Wait for the answer, and return it."""
        _check_context()
        return wait(**self._inputs)

    async def aio(self) -> Any:
        """Wait for the answer in a coroutine, and return it."""
        _check_context()
        return await wait.aio(**self._inputs)


class _NewCondition:
    """Function that returns a condition, with a form `.aio` for coroutines."""

    def __call__(self, name: str, /, **settings: Any) -> Condition:
        """Return a condition of a name, with the settings that are the fields of `Condition`.

        Raises `TypeError` and `ValueError` for settings that it cannot have.
        """
        return Condition(name, **settings)

    async def aio(self, name: str, /, **settings: Any) -> Condition:
        """Return the same condition as a call."""
        return self(name, **settings)


def _check_context() -> None:
    if not ctx():
        raise RuntimeUserError(
            "BadContext", "A condition can only be waited for in a task, while it runs"
        )


new_condition = _NewCondition()
