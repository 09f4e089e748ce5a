"""Runs: a call is carried out by a controller, from its beginning to its end in the history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from flyte_build.declarations.spec import TaskSpec, completed
from flyte_build.errors import FlyteError, InputError
from flyte_build.images.image_choice import ImageChoice
from flyte_build.runner.abort import asked
from flyte_build.runner.call import Call
from flyte_build.runner.engines.protocol import Engine
from flyte_build.runner.history.history import History
from flyte_build.runner.reporter import RunReporter
from flyte_build.runner.result import Failure, Phase, Result
from flyte_build.runner.signals import Interrupts, Stopped

from .capacity import Capacity, endless_capacity, machine_capacity
from .controller import Controller
from .outcome import system_failure
from .policy import beyond, policy_of

if TYPE_CHECKING:
    from flyte_build.runner.history.actions import EarlierRun

    from .placed import ChildPlaces

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
    call: Call,
    engine: Engine,
    history: History,
    reporter: RunReporter,
    began: float,
    open_children: Callable[[], ChildPlaces] | None = None,
) -> Finished:
    """Run a task with all that it calls, and return the finished run.

    `began` is the monotonic time from which the run's seconds count. `open_children` opens places
    for the calls that the task makes; without it, they stay in its own process. Raises
    `PreparationError` for GPUs that are not there, before anything runs.
    """
    inputs = completed(call.task.semantic.interface_document, call.inputs)
    call = call._replace(inputs=inputs, context=call.run.context)
    _say_what_differs(engine, call, reporter)
    capacity = endless_capacity() if engine.runs_here else machine_capacity(call.run.max_actions)
    beyond(call.task, policy_of(call.task, 0).claim.slots, capacity.slots)
    name = history.begin(call)
    folder, url = history.run_folder(name), history.url(name)
    controller: Controller | None = None
    result = Result("failed")
    try:
        earlier = history.earlier(call.run.recovers) if call.run.recovers else None
        controller = Controller(
            name,
            folder,
            reporter,
            lambda: history.actions_of(name),
            capacity,
            open_children,
            earlier,
        )
        reporter.run_started(name, url)
        with Interrupts(collects=not engine.runs_here) as interrupts:
            known = earlier.root(call.inputs) if earlier else None
            result = controller.carry_out(call, engine, interrupts, known)
            if asked(folder):
                interrupts.forget()
    except (KeyboardInterrupt, Stopped):
        request = asked(folder)
        why = str(request) if request else "it was interrupted"
        result = Result("aborted", error=Failure("ActionAbortedError", why))
        if request is None:
            raise
    except FlyteError as error:
        result = Result("failed", error=system_failure(error))
        raise
    except Exception as error:
        result = Result("failed", error=Failure(type(error).__name__, str(error), "system"))
        raise
    finally:
        try:
            if controller:
                controller.end()
            history.end(name, result, controller.attempts if controller else 0)
        finally:
            if controller:
                controller.close()
    if earlier:
        _say_recovered(earlier, reporter)
    return Finished(name, url, call.task.name, result, time.monotonic() - began)


def refuse_missing_gpus(tasks: Iterable[TaskSpec]) -> None:
    """Raise `PreparationError` if a task needs more GPUs than this machine has."""
    capacity: Capacity | None = None
    for task in tasks:
        needs = policy_of(task, 0).claim.slots
        if needs.gpu:
            capacity = capacity or machine_capacity(None)
            beyond(task, needs, capacity.slots)


def _say_recovered(earlier: EarlierRun, reporter: RunReporter) -> None:
    from flyte_build.text.wording import plural

    left = earlier.left()
    rest = f"; {left:,} others were not called again, or with other inputs" if left else ""
    reporter.note(
        f"{plural(earlier.taken, 'action')} of {earlier.run} had succeeded and did not run"
        f" again{rest}."
    )


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
