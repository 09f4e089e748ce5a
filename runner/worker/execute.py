"""Execution of a task's function, in a worker or in the calling process."""

from __future__ import annotations

import _thread
import contextvars
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, NoReturn

from flyte_build._alias import PACKAGE
from flyte_build.declarations.call import running_loop
from flyte_build.declarations.context import (
    ActionID,
    Caller,
    Deployed,
    Memory,
    Pending,
    TaskContext,
    enter,
)
from flyte_build.declarations.interface import Interface, interface_of
from flyte_build.declarations.task import Task
from flyte_build.errors import InputError
from flyte_build.runner.result import Failure, Result
from flyte_build.runner.signals import Stopped
from flyte_build.runner.sources import Sources
from flyte_build.values.type import Mismatch, Wires, shortened

_OURS = (PACKAGE + "/", "<frozen importlib")


class _Refused(Exception):
    """An input does not fit, as opposed to an `InputError` that the task itself raises."""

    def __init__(self, error: InputError) -> None:
        super().__init__(error)
        self.error = error


class OnDemand:
    """Caller that `make` returns, made at the first call: most tasks call none."""

    def __init__(self, make: Callable[[], Caller]) -> None:
        self._make, self._lock = make, _thread.allocate_lock()
        self._caller: Caller | None = None

    def call(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a task through the caller."""
        return self._made().call(task, args, kwargs)

    def start(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
        """Begin a call through the caller."""
        return self._made().start(task, args, kwargs)

    def recall(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Memory | None:
        """Return the memory of a traced call."""
        return self._made().recall(function, args, kwargs)

    def deployed(self, text: str, project: str, domain: str) -> Deployed | None:
        """Return a deployed task that can be called."""
        return self._made().deployed(text, project, domain)

    @property
    def is_used(self) -> bool:
        """Whether something was called."""
        return self._caller is not None

    def close(self) -> None:
        """End what the caller has begun."""
        close = getattr(self._caller, "close", None)
        if close:
            close()

    def _made(self) -> Caller:
        with self._lock:
            self._caller = self._caller or self._make()
            return self._caller


def context_of(
    action: Mapping[str, Any], folder: str, mode: Literal["local", "remote"], caller: Caller
) -> TaskContext:
    """Return the context of an attempt, given its action's document and directory."""
    own = ActionID(action["id"], action["run"], action["project"], action["domain"])
    return TaskContext(
        action=own,
        task_action=own,
        version=action["version"],
        mode=mode,
        attempt_number=action["attempt"] - 1,
        group_data=None,
        custom_context=action["context"],
        started=action["started"],
        output_path=folder,
        data={},
        make_checkpoint=checkpoint_in(folder),
        caller=caller,
    )


def checkpoint_in(folder: str) -> Callable[[], Any]:
    """Return a function that returns the checkpoint of the action with that directory."""

    def make() -> Any:
        from .checkpoint import Checkpoint

        return Checkpoint(f"{folder}/checkpoint")

    return cache(make)


def load_task(module: str, variable: str) -> Task[..., Any]:
    """Import a module, and return the task in its variable `variable`.

    Raises `LookupError` if there is none, and the errors of the import.
    """
    task = getattr(importlib.import_module(module), variable, None)
    if not isinstance(task, Task):
        raise LookupError(
            f"No task named {variable!r} in {module}: importing it here gave something else than"
            " before."
        )
    return task


def execute(
    load: Callable[[], Task[..., Any]], inputs: Wires, sources: Sources, context: TaskContext
) -> Result:
    """Run the task that `load` returns with wire inputs, and return its result.

    It runs in `context`. Tracebacks are cut to the user's `sources`. Only `KeyboardInterrupt` and
    `Stopped` are raised.
    """
    try:
        return Result("succeeded", call(load(), dict(inputs), context))
    except (KeyboardInterrupt, Stopped):
        raise
    except BaseException as error:  # Any exception of a task is its result.
        return _told(error, sources)


async def execute_beside(
    load: Callable[[], Task[..., Any]], inputs: Wires, sources: Sources, context: TaskContext
) -> Result:
    """Run an async task beside others in the same event loop; see `execute`. Nothing is raised."""
    enter(context)
    try:
        task = load()
        interface = interface_of(task.func)
        arguments = _loaded(interface, dict(inputs))
        return Result("succeeded", interface.dump_outputs(await task.func(**arguments)))
    except BaseException as error:
        return _told(error, sources)


def _told(error: BaseException, sources: Sources) -> Result:
    """Return the result of a task that ended with `error`."""
    if isinstance(error, Mismatch):
        at = f" at {error.where.lstrip('. ')}" if error.where else ""
        message = (
            f"the task returned {shortened(error.given)}{at}, but its annotation says"
            f" {error.expected}"
        )
        if error.reasons:
            message = f"{message}. {error.reasons}"
        return Result("failed", error=Failure("RuntimeDataValidationError", message))
    if isinstance(error, _Refused):
        return Result("failed", error=_wrong_input(error.error, sources))
    if isinstance(error, SystemExit):
        message = f"the task called sys.exit({shortened(error.code)})"
        trace = _traceback(error, sources)
        return Result("failed", error=Failure("SystemExit", message, traceback=trace))
    return failure(error, sources)


def failure(error: BaseException, sources: Sources) -> Result:
    """Return the result of a task that raised `error`."""
    from flyte_build.errors import NonRecoverableError
    from flyte_build.workspace.tracebacks import message_of

    from .raised import class_of, state_of

    told = Failure(
        type(error).__name__,
        message_of(error),
        traceback=_traceback(error, sources),
        is_final=isinstance(error, NonRecoverableError),
        cls=class_of(error),
        state=state_of(error),
    )
    return Result("failed", error=told)


def call(task: Task[..., Any], inputs: Wires, own: TaskContext) -> dict[str, Any]:
    """Call a task's function with wire inputs in its own context, and return wire outputs.

    Raises `_Refused` for an input that does not fit.
    """
    interface = interface_of(task.func)
    context = contextvars.copy_context()
    context.run(enter, own)
    arguments = _loaded(interface, inputs)
    return interface.dump_outputs(context.run(_call, task, arguments))


def _loaded(interface: Interface, inputs: Wires) -> dict[str, Any]:
    try:
        return interface.load_inputs(inputs)
    except InputError as error:
        raise _Refused(error) from None


def _call(task: Task[..., Any], arguments: dict[str, Any]) -> Any:
    if not task.is_async:
        return task.func(**arguments)
    import asyncio

    if not running_loop():
        coroutine = task.func(**arguments)
        try:
            return asyncio.run(coroutine)
        finally:
            coroutine.close()  # It may have been interrupted before it began.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:  # This thread already runs a loop, as in a notebook.
        return pool.submit(
            contextvars.copy_context().run, asyncio.run, task.func(**arguments)
        ).result()


def _wrong_input(error: InputError, sources: Sources) -> Failure:
    """Return the failure for an input that its own class refused.

    The traceback is shown only if it leads through the user's code.
    """
    cause = error.__cause__
    frames = traceback.extract_tb(cause.__traceback__) if cause else ()
    trace = (
        _traceback(cause, sources)
        if cause and any(sources.hold(frame.filename) for frame in frames)
        else ""
    )
    return Failure("InputError", f"{error.what}. {error.why}", "input", trace, error.hint)


def _traceback(error: BaseException, sources: Sources) -> str:
    """Return the traceback from the user's first frame on.

    Paths in a bundle are shown as the project's. It is "" without any frame or note.
    """
    from flyte_build.workspace.import_hooks import is_own
    from flyte_build.workspace.tracebacks import cut

    described = traceback.TracebackException.from_exception(error, limit=None)
    for one in _chain(described):
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(_OURS)]
        own = [
            at
            for at, frame in enumerate(one.stack)
            if sources.hold(frame.filename) and is_own(frame.filename)
        ]
        one.stack[:] = one.stack[own[0] :] if own else one.stack[-3:]
    if not described.stack and not hasattr(error, "__notes__"):
        return ""
    try:
        lines = list(described.format())
    except RecursionError:
        lines = list(described.format_exception_only())
    if len(lines) > 400:
        lines = [*lines[:200], "  ...\n", *lines[-200:]]
    return sources.named("".join(cut(line[:-1]) + "\n" for line in lines))


def _chain(described: traceback.TracebackException) -> list[traceback.TracebackException]:
    found: list[traceback.TracebackException] = []
    waiting = [described]
    while waiting and len(found) < 100:
        one = waiting.pop()
        found.append(one)
        others = (one.__cause__, one.__context__, *(one.exceptions or ()))
        waiting += [other for other in others if other is not None]
    return found


def finish(code: int, then: Callable[[], None] = lambda: None) -> NoReturn:
    """End this process like the interpreter, but without the slow teardown of modules.

    `then` is called last.
    """
    import atexit

    threading = sys.modules.get("threading")
    try:
        if threading is not None:
            threading._shutdown()  # The interpreter calls this at its end, too.
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        pass  # The task closed its streams; its result is already written.
    try:
        then()
    finally:
        os._exit(code)
