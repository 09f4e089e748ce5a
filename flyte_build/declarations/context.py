"""Dispatch of task calls: outside of a run to the task's function, inside a run to a child action.

`_caller` decides which. Only a worker sets it.
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


def call(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a task through the context's caller, or its function directly if there is no caller."""
    caller = _caller.get()
    return task.func(*args, **kwargs) if caller is None else caller.call(task, args, kwargs)


async def call_async(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Await the call of a task, sync or async, and return its result; see `call`."""
    result = call(task, args, kwargs)
    return await result if task.is_async else result


def set_caller(caller: Caller | None) -> None:
    """Set the caller that runs task calls in the current context from now on."""
    _caller.set(caller)
