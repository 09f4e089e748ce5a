"""`flyte.map`: one task for each item of iterables, with a window of calls in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from .call import InProcess, InThread, awaited, running_loop
from .context import Caller, GroupData, Pending, changed, ctx
from .task import Task

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_WINDOW = 1000  # Calls in flight at most.


class Map:
    """Function that maps a task over iterables; `aio` does so asynchronously."""

    def __call__(
        self,
        task: Task[..., Any] | partial[Any],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = True,
    ) -> Iterator[Any]:
        """Yield the results of a task for the items of `iterables`, which are zipped, in order.

        Nothing starts before the first result is asked for. At most `concurrency` calls are in
        flight (0: many). An exception takes the place of a result, or, without `return_exceptions`,
        is raised; then, and when this iterator is closed, what is left is aborted. A partial must
        leave one parameter: raises `TypeError`.
        """
        window = _Window(*_split(task), group_name or "map", concurrency)
        if not iterables:
            return
        if running_loop():
            window.leave_the_loop()
        try:
            for pending in window.over(zip(*iterables, strict=False)):
                try:
                    result = pending.result()
                except Exception as error:  # Any exception of a task is its result.
                    if not return_exceptions:
                        raise
                    result = error
                yield result
        finally:
            window.close()

    async def aio(
        self,
        task: Task[..., Any] | partial[Any],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = True,
    ) -> AsyncIterator[Any]:
        """Yield the same results as a call does, asynchronously."""
        window = _Window(*_split(task), group_name or "map", concurrency)
        if not iterables:
            return
        try:
            for pending in window.over(zip(*iterables, strict=False)):
                try:
                    result = await awaited(pending)
                except Exception as error:  # Any exception of a task is its result.
                    if not return_exceptions:
                        raise
                    result = error
                yield result
        finally:
            window.close()


class _Window:
    """The calls in flight of one map, in order."""

    _outside: ThreadPoolExecutor | None = None

    def __init__(
        self, task: Task[..., Any], bound: partial[Any], left: str, group: str, concurrency: int
    ) -> None:
        self._task, self._bound, self._left = task, bound, left
        self._group = GroupData(f"{task.name}_{group}")
        self._size = concurrency or _WINDOW
        self._caller: Caller = ctx().caller or InProcess()
        self._calls: deque[Pending] = deque()

    def over(self, items: Iterator[tuple[Any, ...]]) -> Iterator[Pending]:
        """Yield a call for each tuple of arguments; more are begun as these are taken."""
        for item in items:
            try:
                self._calls.append(self._start(item))
            except Exception as error:  # It takes the place of this item's result.
                self._calls.append(_failed(error))
            if len(self._calls) >= self._size:
                yield self._calls.popleft()
        while self._calls:
            yield self._calls.popleft()

    def _start(self, item: tuple[Any, ...]) -> Pending:
        args, kwargs = self._bound.args, self._bound.keywords
        if self._left and len(item) == 1:
            kwargs = {**kwargs, self._left: item[0]}
        else:
            args = (*args, *item)
        with changed(group_data=self._group):
            start = self._caller.start
            if self._outside is None:
                return start(self._task, args, kwargs)
            context = copy_context()
            return self._outside.submit(context.run, start, self._task, args, kwargs).result()

    def leave_the_loop(self) -> None:
        """Begin the calls in another thread: the map blocks the event loop of its own."""
        from concurrent.futures import ThreadPoolExecutor

        self._outside = ThreadPoolExecutor(1)

    def close(self) -> None:
        """Abort the calls that were not taken."""
        for call in self._calls:
            call.cancel("the map that has called it was closed")
        self._calls.clear()
        if self._outside:
            self._outside.shutdown()


def _failed(error: Exception) -> InThread:
    """Return a call that could not be made, because of `error`."""
    from concurrent.futures import Future

    future: Future[Any] = Future()
    future.set_exception(error)
    return InThread(future)


def _split(task: Task[..., Any] | partial[Any]) -> tuple[Task[..., Any], partial[Any], str]:
    """Return the task that is mapped, what is bound of it, and the parameter that is left.

    The latter is "" for a task of which nothing is bound. Raises `TypeError`.
    """
    import inspect

    bound = task if isinstance(task, partial) else partial(task)
    function = bound.func
    if not isinstance(function, Task):
        raise TypeError(f"flyte.map takes a task, or a partial of one, not {function!r:.100}")
    if not isinstance(task, partial):
        return function, bound, ""
    names = list(inspect.signature(function.func).parameters)
    given = names[: len(bound.args)]
    if twice := [name for name in given if name in bound.keywords]:
        raise TypeError(f"The parameter {twice[0]!r} of {function.name} is bound twice")
    left = [name for name in names if name not in (*given, *bound.keywords)]
    if len(left) != 1:
        raise TypeError(
            f"The partial of {function.name} must leave one parameter for flyte.map, not"
            f" {len(left)}: {', '.join(left) or 'all are bound'}"
        )
    return function, bound, left[0]


map = Map()
