"""Where every call of a task passes through: outside of a run it is a call of the function, inside
it is a child action.

What stands in `_caller` decides. A worker puts its own caller there; nothing else does.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .task import Task


class Caller(Protocol):
    """Runs the call of a task from inside a run."""

    def call(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The task's result, or for an async task an awaitable of it."""


_caller: ContextVar[Caller | None] = ContextVar("flyte_caller", default=None)


def call(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a task in the way that fits where the call stands."""
    caller = _caller.get()
    return task.func(*args, **kwargs) if caller is None else caller.call(task, args, kwargs)


async def call_async(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same as a coroutine, for sync tasks too."""
    result = call(task, args, kwargs)
    return await result if task.is_async else result


def set_caller(caller: Caller | None) -> None:
    """Say who runs the calls of the current context from now on."""
    _caller.set(caller)
