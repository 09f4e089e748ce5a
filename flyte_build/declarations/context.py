"""Dispatch of task calls: outside of a run to the task's function, inside a run to a child action.

A caller decides which. Only the code that executes a task sets one: for a context, or for all
contexts of a process that executes a single action, such as those of threads that the task starts.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .task import Task


class Caller(Protocol):
    """Executor of task calls that are made inside a run."""

    def call(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the task's result, or for an async task an awaitable of it."""


_caller: ContextVar[Caller | None] = ContextVar("flyte_caller", default=None)
_process_caller: Caller | None = None


def call(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a task through the current caller, or its function directly if there is none."""
    caller = _caller.get() or _process_caller
    return task.func(*args, **kwargs) if caller is None else caller.call(task, args, kwargs)


async def call_async(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Await the call of a task, sync or async, and return its result; see `call`."""
    result = call(task, args, kwargs)
    return await result if task.is_async else result


def set_caller(caller: Caller | None) -> None:
    """Set the caller that runs task calls in the current context from now on."""
    _caller.set(caller)


def set_process_caller(caller: Caller | None) -> None:
    """Set the caller that runs task calls in all contexts of this process that have no other."""
    global _process_caller
    _process_caller = caller
