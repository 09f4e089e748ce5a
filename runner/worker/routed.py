"""Output of actions that share a process, told apart by the context that writes it.

Python's own streams are routed. A process that an action starts, and a thread that it starts
without its context, write to those of the process.
"""

from __future__ import annotations

import io
import os
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from asyncio import Task

    from _typeshed import ReadableBuffer

_NAMES = {1: "stdout", 2: "stderr"}


class Streams:
    """Descriptors of an action's output and error, and the tasks of asyncio that it has begun."""

    def __init__(self, out: int, err: int) -> None:
        self._descriptors = {1: out, 2: err}
        self.tasks: WeakSet[Task[Any]] = WeakSet()

    def descriptor(self, stream: int) -> int:
        """Return the descriptor for a stream (1 or 2): that of the process after `close`."""
        return self._descriptors.get(stream, stream)

    def close(self) -> None:
        """Close the descriptors."""
        descriptors, self._descriptors = self._descriptors, {}
        for each in descriptors.values():
            os.close(each)


streams: ContextVar[Streams | None] = ContextVar("flyte_streams", default=None)
"""The streams of the action to which the current context belongs."""


class _Routed(io.RawIOBase):
    """A stream of this process (1 or 2), whose bytes go to the action that writes them."""

    def __init__(self, stream: int) -> None:
        self._stream = stream

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor for processes that are started."""
        return self._stream

    def isatty(self) -> bool:
        """Whether it is shown on a terminal."""
        return os.isatty(self._stream)

    def write(self, data: ReadableBuffer) -> int:
        """Write all bytes. Raises `OSError`."""
        own, rest = streams.get(), memoryview(data).cast("B")
        size = len(rest)
        while rest:
            rest = rest[os.write(own.descriptor(self._stream) if own else self._stream, rest) :]
        return size


def route() -> None:
    """Route standard output and error of this process from now on."""
    for stream, name in _NAMES.items():
        before = getattr(sys, name)
        setattr(
            sys,
            name,
            io.TextIOWrapper(_Routed(stream), before.encoding, before.errors, write_through=True),
        )
