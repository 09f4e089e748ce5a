"""Traced calls: their ids, and their values as JSON."""

from __future__ import annotations

import inspect
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from flyte_build.cas.digest import Digest
from flyte_build.runner.result import Result
from flyte_build.values.objects import Anything
from flyte_build.values.type import Mismatch

from .child import next_child_id

_VALUE = Anything("any")


class TraceStore(Protocol):
    """Store of the results of traced calls."""

    def find(self, id: str) -> Result | None:
        """Return the result of the call, if it succeeded before."""

    def save(self, id: str, name: str, inputs: Mapping[str, Any], result: Result) -> None:
        """Record the result of the call."""


class Trace:
    """Memory of a traced call below the action `parent`.

    `failure` returns the result for an exception. An argument that has no wire form makes the call
    unknown, and unrecorded.
    """

    def __init__(self, id: str, name: str, inputs: Mapping[str, Any], store: TraceStore) -> None:
        self.id, self.name, self._inputs, self._store = id, name, inputs, store
        known = store.find(id)
        self.is_known = known is not None
        self.value: Any = _VALUE.load(known.outputs["o0"]) if known else None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the `value` that the body sets, unless it raises an exception."""
        yield
        try:
            wire = _VALUE.dump(self.value)
        except Mismatch:
            return  # It cannot be remembered, so the next attempt calls the function again.
        self._store.save(self.id, self.name, self._inputs, Result("succeeded", {"o0": wire}))


def trace_of(
    parent: str,
    function: Any,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    calls: Counter[str],
    store: TraceStore,
) -> Trace | None:
    """Return the memory of a call of a function below an action; None if it cannot have one.

    The id depends on the function's name and source, on its arguments, and on how many equal calls
    are in `calls`, to which this one is added.
    """
    args, kwargs = arguments
    name = f"{function.__module__}.{function.__qualname__}"
    try:
        inputs = {
            "args": [*map(_VALUE.dump, args)],
            "kwargs": {n: _VALUE.dump(v) for n, v in kwargs.items()},
        }
        source = textwrap.dedent(inspect.getsource(function))
    except (Mismatch, OSError, TypeError):
        return None
    told = {**inputs, "source": Digest.of(source.encode("utf-8", "surrogatepass"))}
    id, _ = next_child_id(parent, name, told, calls)
    return Trace(id, name, inputs, store)
