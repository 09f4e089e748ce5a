"""Execution of a call on an engine: attempts, retries, timeouts, cancellation, and the history."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from flyte_build.declarations.spec import TaskSpec
from flyte_build.errors import FlyteError, InputError
from flyte_build.images.image_choice import ImageChoice
from flyte_build.runner.abort import LOOK, asked
from flyte_build.runner.action import Action
from flyte_build.runner.call import Call
from flyte_build.runner.history.history import History
from flyte_build.runner.reporter import RunReporter
from flyte_build.runner.result import Failure, Phase, Result
from flyte_build.runner.signals import Stopped
from flyte_build.values.type import Wires

if TYPE_CHECKING:
    from flyte_build.runner.abort import Request
    from flyte_build.runner.engines.protocol import Engine, Event

_PATIENCE = 1.0  # Seconds that a task has to end when its run is aborted.
_EXIT_CODES: dict[Phase, int] = {"succeeded": 0, "failed": 1, "aborted": 5, "timed_out": 6}


class Finished(NamedTuple):
    """A finished run, and the seconds that it took."""

    name: str
    url: str
    task: str
    result: Result
    seconds: float

    @property
    def exit_code(self) -> int:
        """The exit code of the command.

        An input that its own class refuses counts as a wrong input, although only the run detects
        it.
        """
        result = self.result
        return InputError.exit_code if _wrong_input(result) else _EXIT_CODES[result.phase]


def carry_out(
    call: Call, engine: Engine, history: History, reporter: RunReporter, began: float
) -> Finished:
    """Run a task until it succeeds or has no more retries, and return the finished run.

    `began` is the monotonic time from which the run's seconds count.
    """
    call = replace(call, inputs=_effective(call))
    _say_what_differs(engine, call, reporter)
    name = history.begin(call)
    folder, url = history.run_folder(name), history.url(name)
    attempt, result = 0, Result("failed")
    try:
        reporter.run_started(name, url)
        while True:
            attempt += 1
            result = _try(
                engine, Action(id=f"{name}-a0", run=name, folder=folder, call=call, attempt=attempt)
            )
            if (
                result.phase in ("succeeded", "aborted")
                or _wrong_input(result)
                or attempt > call.task.operational.retries
            ):
                break
            _wait_before_retry(call.task, attempt, result, folder, reporter)
    except (KeyboardInterrupt, Stopped):
        request = asked(folder)
        result = _aborted(request)
        if request is None:
            raise
    except Exception as error:
        what = error.what if isinstance(error, FlyteError) else str(error)
        result = Result("failed", error=Failure(type(error).__name__, what, "system"))
        raise
    finally:
        history.end(name, result, attempt)
    return Finished(name, url, call.task.name, result, time.monotonic() - began)


def _effective(call: Call) -> Wires:
    """Return the inputs, completed by the declared defaults: those that the task is called with."""
    described = call.task.semantic.interface_document["inputs"]
    values = {
        **{each["name"]: each["default"] for each in described if "default" in each},
        **call.inputs,
    }
    return {each["name"]: values[each["name"]] for each in described if each["name"] in values}


def _wait_before_retry(
    task: TaskSpec, attempt: int, result: Result, folder: str, reporter: RunReporter
) -> None:
    operational = task.operational
    wait = operational.backoff[attempt - 1] if operational.backoff else 0.0
    reason = result.error.message if result.error else result.phase
    again = f"trying again in {wait:g} s" if wait else "trying again"
    reporter.note(f"Attempt {attempt} of {operational.retries + 1} failed ({reason}); {again}.")
    until = time.monotonic() + wait
    while (left := until - time.monotonic()) > 0 and not asked(folder):
        time.sleep(min(LOOK, left))


def _try(engine: Engine, action: Action) -> Result:
    """Make one attempt; stop it at its timeout, or when an abort is requested."""
    if request := asked(action.folder):
        return _aborted(request)
    timeout = action.call.task.operational.timeout
    until = None if timeout is None else time.monotonic() + timeout
    try:
        engine.submit(action)
        while True:
            left = LOOK if until is None else min(LOOK, until - time.monotonic())
            event = engine.wait(action, max(0.0, left))
            if event is not None:
                return _outcome(action, event)
            if request := asked(action.folder):
                _stop(engine, action, _PATIENCE)
                return _aborted(request)
            if until is not None and time.monotonic() >= until:
                _stop(engine, action)
                late = f"it ran longer than its timeout of {timeout:g} s"
                return Result("timed_out", error=Failure("TaskTimeoutError", late))
    except (KeyboardInterrupt, Stopped):
        _stop(engine, action)
        raise


def _stop(engine: Engine, action: Action, patience: float | None = None) -> None:
    """End an attempt: ask it to end, then kill it after `patience` seconds or a second interrupt.

    With None, the engine's own grace period applies.
    """
    if action not in engine.running():
        return
    try:
        engine.cancel(action, at_once=False)
        if engine.wait(action, patience) is not None:
            return
    except (KeyboardInterrupt, Stopped):
        pass
    engine.cancel(action, at_once=True)
    engine.wait(action, None)


def _aborted(request: Request | None) -> Result:
    why = str(request) if request else "it was interrupted"
    return Result("aborted", error=Failure("ActionAbortedError", why))


def _outcome(action: Action, event: Event) -> Result:
    if result := Result.read(action.folder):
        # The task can write the file, so any phase other than these two is overridden.
        return result._replace(phase="failed") if result.error else result
    # Without a result it has not succeeded, even if the engine reports success.
    why = event.why or "its process ended without a result"
    if event.kind == "succeeded":
        why = "its process ended with exit code 0, but without a result (os._exit?)"
    if event.out_of_memory:
        return Result("failed", error=Failure("OOMError", why))
    return Result("failed", error=Failure("RuntimeUnknownError", why, "system"))


def _wrong_input(result: Result) -> bool:
    return result.error is not None and result.error.kind == "input"


def _say_what_differs(engine: Engine, call: Call, reporter: RunReporter) -> None:
    """Note, once for a run, each way in which it differs from its declaration."""
    task, operational = call.task, call.task.operational
    if bare := operational.unannotated:
        verb = "have" if len(bare) > 1 else "has"
        reporter.note(
            f"{', '.join(bare)} of {task.name} {verb} no annotation: values that are not JSON are"
            " pickled."
        )
    described = task.semantic.interface_document["inputs"]
    computed = [
        each["name"]
        for each in described
        if each["default_text"] and each["name"] not in call.inputs
    ]
    if computed:
        whose = "defaults" if len(computed) > 1 else "default"
        reporter.note(
            f"Cannot record the {whose} of {', '.join(computed)} of {task.name}: computed again"
            " where the task runs."
        )
    unused = [
        name
        for name in sorted({*operational.options, *call.run.options})
        if name not in engine.acts_on
    ]
    if operational.timeout and "timeout" not in engine.acts_on:
        unused.append("timeout")
    unused += ImageChoice(task.semantic.image).unused_options
    if unused:
        reporter.note(f"The {engine.name} engine ignores: {', '.join(unused)}.")
