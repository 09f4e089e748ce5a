"""Calls of tasks: outside of a run of their functions, inside a run of child actions."""

from __future__ import annotations

import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flyte_build.errors import SyncTaskCallInAsyncContextError

from .context import Pending, ctx

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from concurrent.futures import Future, ThreadPoolExecutor

    from .task import Task


def call(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a task through the current caller, or its function directly if there is none.

    Raises `SyncTaskCallInAsyncContextError` for a call that would block an event loop.
    """
    caller = ctx().caller
    if caller is None:
        return task.func(*args, **kwargs)
    if not task.is_async and running_loop():
        raise SyncTaskCallInAsyncContextError(
            f"The task {task.name} was called synchronously from a coroutine",
            why="The event loop would stand still until it ends.",
            hint=f"Write `await {task.func.__name__}.aio(...)`.",
        )
    return caller.call(task, args, kwargs)


async def call_async(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Await the call of a task, sync or async, and return its result; see `call`."""
    caller = ctx().caller
    if caller is None or task.is_async:
        result = call(task, args, kwargs)
        return await result if task.is_async else result
    return await awaited(caller.start(task, args, kwargs))


async def awaited(pending: Pending) -> Any:
    """Wait for a call, and return its result; cancelling this aborts the call."""
    import asyncio

    done = asyncio.wrap_future(pending.future)
    try:
        await asyncio.wait([done])
    except asyncio.CancelledError:
        pending.cancel("its caller does not wait for it any more")
        raise
    if not done.cancelled():
        done.exception()  # Otherwise asyncio reports that it was never retrieved.
    return pending.result()


def running_loop() -> AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if any, without importing asyncio."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio.get_running_loop() if asyncio else None
    except RuntimeError:
        return None


class InProcess:
    """Caller that calls functions, at once or in as many threads as there are processors."""

    def call(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function, and return its result, which is a coroutine for an async task."""
        return task.func(*args, **kwargs)

    def start(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
        """Call the function in a thread."""
        from contextvars import copy_context

        return InThread(
            self._threads.submit(copy_context().run, run_function, task.func, args, kwargs)
        )

    def recall(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember nothing."""

    def deployed(self, text: str, project: str, domain: str) -> None:
        """Return None: a call of a deployed task is a run of its own."""

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        import os
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(os.cpu_count(), "flyte-call")


class InThread:
    """A call in a thread."""

    def __init__(self, future: Future[Any]) -> None:
        self.future = future

    def result(self) -> Any:
        """Wait for the call, and return its result. Raises its error."""
        return self.future.result()

    def cancel(self, reason: str) -> None:
        """Cancel the call, if it has not begun."""
        self.future.cancel()


def run_function(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a function, sync or async, and return its result."""
    import inspect

    if not inspect.iscoroutinefunction(function):
        return function(*args, **kwargs)
    import asyncio

    return asyncio.run(function(*args, **kwargs))
