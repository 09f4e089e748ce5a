"""Calls of tasks inside a task that runs in the calling process: recorded, and retried, there.

Values are passed as they are. A direct call of a sync task runs in the calling thread, so that
debuggers work; async tasks run in the caller's event loop, other calls in threads.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flyte_build.declarations.call import InThread, running_loop
from flyte_build.declarations.context import Memory, Pending, changed, ctx
from flyte_build.declarations.describe import task_spec
from flyte_build.declarations.interface import Interface, interface_of
from flyte_build.declarations.spec import TaskSpec, completed
from flyte_build.declarations.task import Task
from flyte_build.errors import DeadlineExceededError, TaskTimeoutError
from flyte_build.runner.action import label, remove_checkpoint
from flyte_build.runner.child import next_child_id
from flyte_build.runner.history.actions import NewAction
from flyte_build.runner.reporter import retry_text
from flyte_build.runner.result import Failure, Result
from flyte_build.runner.sources import Sources
from flyte_build.runner.traces import trace_of
from flyte_build.runner.worker.execute import checkpoint_in, failure
from flyte_build.runner.worker.raised import with_face
from flyte_build.values.type import Mismatch

from .time_limit import Limit, time_limit

if TYPE_CHECKING:
    from flyte_build.runner.history.actions import Actions


@dataclass(eq=False)
class LocalRun:
    """State that all actions of a run in this process share.

    `open_actions` opens the recorder of children, `note` takes a sentence for the user.
    """

    open_actions: Callable[[], Actions]
    note: Callable[[str], None]
    sources: Sources
    lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def actions(self) -> Actions:
        """The recorder of children."""
        return self.open_actions()

    def record(self, write: Callable[[Actions], None]) -> None:
        """Record something in a transaction of its own."""
        with self.lock, self.actions.commit():
            write(self.actions)


@dataclass(frozen=True)
class _Call:
    """A call of a task as the action `id`."""

    id: str
    task: Task[..., Any]
    spec: TaskSpec
    interface: Interface
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class LocalCalls:
    """Caller of tasks for the action `action` of a run in this process."""

    def __init__(self, run: LocalRun, action: str) -> None:
        self._run, self._action = run, action
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()

    def call(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a task in this thread; that of an async task is made by awaiting the result."""
        call = self._begin(task, args, kwargs)
        return self._awaited(call) if task.is_async else self._called(call)

    def start(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
        """Begin a call: of an async task in the running event loop, else in a thread."""
        call = self._begin(task, args, kwargs)
        if task.is_async and (loop := running_loop()):
            return _InLoop(loop, self._awaited(call))
        function = self._called if not task.is_async else self._run_until_done
        return InThread(self._threads.submit(copy_context().run, function, call))

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        """Threads of this action alone: calls that wait for calls leave some to these."""
        return ThreadPoolExecutor(os.cpu_count(), "flyte-call")

    def close(self) -> None:
        """Let the threads end."""
        if "_threads" in vars(self):
            self._threads.shutdown(wait=False)

    def recall(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Memory | None:
        """Return the memory of a traced call."""
        store = _Traces(self._run, self._action)
        with self._lock:
            return trace_of(self._action, function, (args, kwargs), self._calls, store)

    def deployed(self, text: str, project: str, domain: str) -> None:
        """Return None: a call of a deployed task is a run of its own."""

    def _run_until_done(self, call: _Call) -> Any:
        return asyncio.run(self._awaited(call))

    def _begin(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
        spec, interface = task_spec(task, docs=False), interface_of(task.func)
        given = interface.dump_inputs(args, kwargs)
        inputs = completed(spec.semantic.interface_document, given)
        with self._lock:
            id, _ = next_child_id(self._action, task.name, inputs, self._calls)
        group = ctx().group_data
        action = NewAction(
            id, self._action, task.name, group.name if group else "", "local", inputs
        )
        self._run.record(lambda actions: actions.queued(action, time.time()))
        return _Call(id, task, spec, interface, args, kwargs)

    def _called(self, call: _Call) -> Any:
        attempt, limit = 0, Limit(call.spec)
        while True:
            attempt += 1
            try:
                with self._entered(call, attempt), time_limit(limit.seconds, limit.error):
                    value = call.task.func(*call.args, **call.kwargs)
            except BaseException as error:  # Whatever it is, the attempt has ended.
                wait = self._failed(call, attempt, error)
                if wait is None:
                    raise with_face(error, call.id) from None
                time.sleep(wait)
            else:
                return self._succeeded(call, attempt, value)

    async def _awaited(self, call: _Call) -> Any:
        attempt, limit = 0, Limit(call.spec)
        while True:
            attempt += 1
            try:
                with self._entered(call, attempt):
                    value = await limit.keep(call.task.func(*call.args, **call.kwargs))
            except BaseException as error:  # Whatever it is, the attempt has ended.
                wait = self._failed(call, attempt, error)
                if wait is None:
                    raise with_face(error, call.id) from None
                await asyncio.sleep(wait)
            else:
                return self._succeeded(call, attempt, value)

    @contextmanager
    def _entered(self, call: _Call, attempt: int) -> Iterator[None]:
        """Record the start of an attempt, and run the body in its context.

        Environment variables are those of the whole process.
        """
        callers = ctx().attempt_number
        os.environ.update(call.spec.semantic.env_vars, FLYTE_ATTEMPT_NUMBER=str(attempt - 1))
        self._run.record(lambda actions: actions.started(call.id, attempt, time.time()))
        own = ctx().action
        assert own is not None
        action = own._replace(name=call.id)
        calls = LocalCalls(self._run, call.id)
        with changed(
            action=action,
            task_action=action,
            attempt_number=attempt - 1,
            group_data=None,
            caller=calls,
            make_checkpoint=checkpoint_in(f"{ctx().output_path}/actions/{call.id}"),
        ):
            try:
                yield
            finally:
                calls.close()
                os.environ["FLYTE_ATTEMPT_NUMBER"] = str(callers)

    def _succeeded(self, call: _Call, attempt: int, value: Any) -> Any:
        """Record the result, and return it. Raises `Mismatch` if it is not of its type."""
        try:
            result = Result("succeeded", call.interface.dump_outputs(value))
        except Mismatch as error:
            message = f"the task returned {error.given!r:.100}, not {error.expected}"
            result = Result("failed", error=Failure("RuntimeDataValidationError", message))
            self._end(call, attempt, result)
            raise
        self._end(call, attempt, result)
        remove_checkpoint(f"{ctx().output_path}/actions/{call.id}")
        return value

    def _failed(self, call: _Call, attempt: int, error: BaseException) -> float | None:
        """Record a failed attempt, and return the wait before the next one, or None."""
        operational = call.spec.operational
        if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
            why = "it was interrupted"
            self._end(call, attempt, Result("aborted", error=Failure("ActionAbortedError", why)))
            return None
        result = failure(error, self._run.sources)
        if isinstance(error, TaskTimeoutError):
            result = result._replace(phase="timed_out")
        is_late = isinstance(error, DeadlineExceededError)  # Which spans all attempts.
        if attempt > operational.retries or is_late or not result.is_retried:
            self._end(call, attempt, result)
            return None
        self._run.record(lambda actions: actions.attempted(call.id, attempt, result, time.time()))
        wait = operational.backoff[attempt - 1] if operational.backoff else 0.0
        text = retry_text(attempt, operational.retries + 1, result, wait)
        self._run.note(f"{label(operational.short_name, call.id)}: {text}")
        return wait

    def _end(self, call: _Call, attempt: int, result: Result) -> None:
        self._run.record(lambda actions: actions.ended(call.id, attempt, result, time.time()))


class _Traces:
    """Store of the traced calls of an action."""

    def __init__(self, run: LocalRun, action: str) -> None:
        self._run, self._action = run, action

    def find(self, id: str) -> Result | None:
        """Return the result of a call, if it succeeded in an earlier attempt."""
        with self._run.lock:
            return self._run.actions.find(id)

    def save(self, id: str, name: str, inputs: Mapping[str, Any], result: Result) -> None:
        """Record the result of a call."""
        trace, now = NewAction(id, self._action, name, "", "trace", inputs), time.time()

        def write(actions: Actions) -> None:
            actions.queued(trace, now)
            actions.ended(id, 0, result, now)

        self._run.record(write)


class _InLoop:
    """A call in the running event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Any) -> None:
        self.future: Future[Any] = Future()
        self._task = loop.create_task(coroutine)
        self._task.add_done_callback(lambda task: self.future.set_result(None))

    def result(self) -> Any:
        """Return the result of the call, which has ended. Raises its error."""
        return self._task.result()

    def cancel(self, reason: str) -> None:
        """Cancel the call."""
        self._task.cancel(reason)
