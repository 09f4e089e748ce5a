"""`flyte.trace`: functions whose results a run remembers, for its retries and for its recovery."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn, ParamSpec, TypeVar

from flyte_build.errors import TraceDoesNotAllowNestedTasksError

from .context import Memory, changed, ctx
from .task import Task

P = ParamSpec("P")
R = TypeVar("R")


def trace(function: Callable[P, R]) -> Callable[P, R]:
    """Remember what a function, coroutine function or generator function returns in a run.

    A call that succeeded is not made again by a later attempt or a recovered run; a generator
    yields what it has yielded. The source of the function counts: an edited one runs again. It may
    not call tasks. Outside of a run, it is the plain function.
    """
    if inspect.isasyncgenfunction(function):
        wrapper: Any = _async_generator(function)
    elif inspect.iscoroutinefunction(function):
        wrapper = _coroutine(function)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function)
    else:
        wrapper = _plain(function)
    traced: Callable[P, R] = functools.update_wrapper(wrapper, function)
    return traced


def _memory(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Memory | None:
    """Return the memory of a call; None outside of a run."""
    caller = ctx().caller
    return None if caller is None else caller.recall(function, args, kwargs)


def _body(memory: Memory) -> Any:
    """Return the context of a traced function's body."""
    own = ctx().action
    assert own is not None
    return changed(action=own._replace(name=memory.id), caller=_NoTasks(memory.name))


def _plain(function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        memory = _memory(function, args, kwargs)
        if memory is None:
            return function(*args, **kwargs)
        if memory.is_known:
            return memory.value
        with memory.recording(), _body(memory):
            memory.value = function(*args, **kwargs)
        return memory.value

    return call


def _coroutine(function: Any) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        memory = _memory(function, args, kwargs)
        if memory is None:
            return await function(*args, **kwargs)
        if memory.is_known:
            return memory.value
        with memory.recording(), _body(memory):
            memory.value = await function(*args, **kwargs)
        return memory.value

    return call


def _generator(function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
        memory = _memory(function, args, kwargs)
        if memory is None:
            yield from function(*args, **kwargs)
        elif memory.is_known:
            yield from memory.value
        else:
            with memory.recording():
                items, generator = [], function(*args, **kwargs)
                while True:
                    with _body(memory):
                        try:
                            item = next(generator)
                        except StopIteration:
                            break
                    items.append(item)
                    yield item
                memory.value = items

    return call


def _async_generator(function: Any) -> Any:
    async def call(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        memory = _memory(function, args, kwargs)
        if memory is not None and memory.is_known:
            for item in memory.value:
                yield item
        elif memory is None:
            async for item in function(*args, **kwargs):
                yield item
        else:
            with memory.recording():
                items, generator = [], function(*args, **kwargs)
                while True:
                    with _body(memory):
                        try:
                            item = await anext(generator)
                        except StopAsyncIteration:
                            break
                    items.append(item)
                    yield item
                memory.value = items

    return call


class _NoTasks:
    """Caller in a traced function, which may call no tasks."""

    def __init__(self, name: str) -> None:
        self._name = name

    def call(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Raise `TraceDoesNotAllowNestedTasksError`."""
        self._refuse(task.name)

    def start(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Raise `TraceDoesNotAllowNestedTasksError`."""
        return self.call(task, args, kwargs)

    def recall(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember nothing: an inner trace is a part of the outer one."""

    def deployed(self, text: str, project: str, domain: str) -> NoReturn:
        """Raise `TraceDoesNotAllowNestedTasksError`."""
        self._refuse(text)

    def _refuse(self, task: str) -> NoReturn:
        raise TraceDoesNotAllowNestedTasksError(
            f"The traced function {self._name} calls the task {task}",
            why="A trace is one step, whose result is remembered as a whole.",
            hint="Call the task outside of the traced function, or remove `@flyte.trace`.",
        )
