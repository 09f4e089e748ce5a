"""Results from the history as Python sees them: outputs, or an error that is raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from flyte_build.declarations.interface import Interface
from flyte_build.errors import (
    ActionAbortedError,
    DeadlineExceededError,
    InputError,
    MaxQueuedTimeExceededError,
    MaxRuntimeExceededError,
    OOMError,
    RuntimeSystemError,
    RuntimeUserError,
    TaskTimeoutError,
)
from flyte_build.graph.reporter import Reporter
from flyte_build.runner.history.history import History
from flyte_build.runner.history.rows import ActionRow
from flyte_build.runner.result import Failure

_ERRORS: dict[str, type[RuntimeUserError]] = {
    "DeadlineExceededError": DeadlineExceededError,
    "MaxQueuedTimeExceededError": MaxQueuedTimeExceededError,
    "MaxRuntimeExceededError": MaxRuntimeExceededError,
    "OOMError": OOMError,
    "TaskTimeoutError": TaskTimeoutError,
}


class Outputs(tuple[Any, ...]):
    """Outputs of a run or an action, in order and by name."""

    def __new__(cls, values: Sequence[Any], names: list[str]) -> Outputs:
        outputs = super().__new__(cls, values)
        outputs._names = names
        return outputs

    _names: list[str]

    @property
    def named_outputs(self) -> dict[str, Any]:
        """Outputs by name."""
        return dict(zip(self._names, self, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the outputs by name."""
        return self.named_outputs


def loaded(wire: Mapping[str, Any], interface: Interface | None) -> Outputs:
    """Return wire outputs as the values of an interface; without it, as JSON values."""
    if interface is None:
        return Outputs(tuple(wire.values()), list(wire))
    return Outputs(interface.load_outputs(dict(wire)), [name for name, _ in interface.outputs])


def raise_error(whose: str, row: ActionRow, error: Failure | None) -> NoReturn:
    """Raise the error of an action that has not succeeded; `whose` names it in the message."""
    if row.phase == "aborted":
        raise ActionAbortedError(f"{whose} was aborted", why=row.why)
    if error is None:
        raise RuntimeSystemError("RuntimeSystemError", f"{row.task}: {row.phase}", why=row.why)
    if error.kind == "input":
        raise InputError(f"{row.task}: {error.message}", why=error.traceback, hint=error.hint)
    fallback = RuntimeUserError if error.kind == "user" else RuntimeSystemError
    raise _ERRORS.get(error.type, fallback)(
        code=error.type,
        message=f"{row.task}: {error.type}: {error.message}",
        why=error.traceback,
    )


@contextmanager
def opened(data: str) -> Iterator[History]:
    """Open the history in a data directory, and close it at the end of the body."""
    history = History.open(data, Reporter().note)
    try:
        yield history
    finally:
        history.close()
