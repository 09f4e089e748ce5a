"""Context of a running task: who it is, and who carries out the tasks that it calls.

Outside of a run there is none, and calling a task calls its function. The code that executes a task
sets it: for a context, or for a whole process that executes a single action, so that threads that
the task starts have it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from flyte_build.errors import NotInTaskContextError

if TYPE_CHECKING:
    from concurrent.futures import Future
    from datetime import datetime

    from .spec import TaskSpec
    from .task import Task


class Pending(Protocol):
    """A call that was made: `future` is done as soon as `result` does not wait."""

    future: Future[Any]

    def result(self) -> Any:
        """Wait for the call, and return its result. Raises the task's error."""

    def cancel(self, reason: str) -> None:
        """Abort the call."""


class Memory(Protocol):
    """Memory of a traced call of the function `name`, as the action `id`.

    `value` is what the call has returned, if it is known, or else what `recording` records.
    """

    id: str
    name: str
    is_known: bool
    value: Any

    def recording(self) -> AbstractContextManager[None]:
        """Return a context that records the `value` that its body sets, or its exception."""


class Deployed(Protocol):
    """A deployed task that can be called: `document` are its details, as a JSON value."""

    document: Mapping[str, Any]

    def start(self, spec: TaskSpec, inputs: Mapping[str, Any]) -> Pending:
        """Call it, with a spec of which options may be overridden, and with wire inputs.

        The result are wire outputs.
        """


class Caller(Protocol):
    """Executor of task calls that are made inside a run."""

    def call(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the task's result, or for an async task an awaitable of it."""

    def start(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
        """Make a call, sync or async, that goes on beside the caller."""

    def recall(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Memory | None:
        """Return the memory of a traced call, or None if nothing is remembered."""

    def deployed(self, text: str, project: str, domain: str) -> Deployed | None:
        """Return the deployed task that a reference names; None if it would be a run of its own.

        Raises `NotFound`.
        """


class ActionID(NamedTuple):
    """Identity of an action."""

    name: str
    run_name: str
    project: str
    domain: str


class GroupData(NamedTuple):
    """Group that calls belong to."""

    name: str


@dataclass(frozen=True, kw_only=True)
class TaskContext:
    """Context of a running task; it is false, with all fields None, outside of a task.

    `attempt_number` counts from 0. `custom_context` is passed on to all tasks that are called, and
    `started` is the start of the run in epoch seconds.
    """

    action: ActionID | None = None
    task_action: ActionID | None = None
    version: str | None = None
    mode: Literal["local", "remote"] | None = None
    attempt_number: int | None = None
    group_data: GroupData | None = None
    custom_context: Mapping[str, str] | None = None
    started: float | None = field(default=None, repr=False)
    raw_data_path: str | None = None
    output_path: str | None = None
    code_bundle: str | None = None
    data: Mapping[str, Any] | None = None
    report: Any = None
    make_checkpoint: Callable[[], Any] | None = field(default=None, repr=False)
    caller: Caller | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return self.action is not None

    @property
    def run_start_time(self) -> datetime | None:
        """Start of the run."""
        if self.started is None:
            return None
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self.started, UTC)

    @property
    def checkpoint(self) -> Any:
        """Checkpoint of the action: what it saves for its next attempt."""
        return self.make_checkpoint() if self.make_checkpoint else None

    def is_in_cluster(self) -> bool:
        """Whether the task was prepared, and does not run in its caller's process."""
        return self.mode == "remote"


_OUTSIDE = TaskContext()
_current: ContextVar[TaskContext | None] = ContextVar("flyte_task", default=None)
_of_process: TaskContext | None = None
_is_shared = False  # Whether several actions run in this process.


def ctx() -> TaskContext:
    """Return the context of the running task; outside of a task, it is false.

    Raises `NotInTaskContextError` in a thread without context, if actions share the process.
    """
    context = _current.get() or _of_process
    if context is None and _is_shared:
        raise NotInTaskContextError(
            "NotInTaskContextError",
            "This thread does not know to which action it belongs: its worker runs several at once",
            hint="Start it with `contextvars.copy_context().run`, or use `asyncio.to_thread`.",
        )
    return context or _OUTSIDE


def enter(context: TaskContext) -> None:
    """Set the context of what runs in the current `contextvars` context from now on."""
    _current.set(context)


def enter_process(context: TaskContext | None) -> None:
    """Set the context of everything in this process that has no other; None ends that."""
    global _of_process
    _of_process = context


def share_process() -> None:
    """Let several actions run in this process, of which each has its own `contextvars` context."""
    global _is_shared
    _is_shared = True


@contextmanager
def changed(**fields: Any) -> Iterator[None]:
    """Change fields of the task's context in the body; outside of a task, nothing changes."""
    context = ctx()
    if not context:
        yield
        return
    token = _current.set(replace(context, **fields))
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def group(name: str) -> Iterator[None]:
    """Let the tasks that are called in the body belong to a group of this name."""
    with changed(group_data=GroupData(name)):
        yield


@contextmanager
def custom_context(**values: str) -> Iterator[None]:
    """Pass values to the tasks that are called in the body, and to all that these call.

    Raises `TypeError` for a value that is not a string.
    """
    for key, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"The value of {key!r} must be a string, not {value!r:.100}")
    with changed(custom_context={**(ctx().custom_context or {}), **values}):
        yield


def get_custom_context() -> dict[str, str]:
    """Return the values that callers passed with `custom_context`."""
    return dict(ctx().custom_context or {})
