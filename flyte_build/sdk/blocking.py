"""Blocking functions with an `.aio` variant: a coroutine or async iterator that uses a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class Blocking(Generic[P, R]):
    """A blocking function `f`, which can also be called as `await f.aio(...)`."""

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self._function(*args, **kwargs)

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in a thread, and await its result."""
        import asyncio

        return await asyncio.to_thread(self._function, *args, **kwargs)


class BlockingIterator(Generic[P, R]):
    """A function `f` that returns a blocking iterator; also `async for each in f.aio(...)`."""

    def __init__(self, function: Callable[P, Iterator[R]]) -> None:
        self._function = function
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        """Call the function."""
        return self._function(*args, **kwargs)

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        """Call the function, and advance its iterator in a thread."""
        import asyncio

        iterator, end = self._function(*args, **kwargs), object()
        while (each := await asyncio.to_thread(next, iterator, end)) is not end:
            yield each  # type: ignore[misc]  # `each` is not `end` here.


class blocking(Generic[S, P, R]):
    """Decorator that makes a method `Blocking`."""

    def __init__(self, function: Callable[Concatenate[S, P], R]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: S, owner: Any) -> Blocking[P, R]:
        return Blocking(self._function.__get__(instance, owner))


class blocking_iterator(Generic[S, P, R]):
    """Decorator that makes a method a `BlockingIterator`."""

    def __init__(self, function: Callable[Concatenate[S, P], Iterator[R]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: S, owner: Any) -> BlockingIterator[P, R]:
        return BlockingIterator(self._function.__get__(instance, owner))
