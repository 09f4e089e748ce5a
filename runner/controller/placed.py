"""Actions of a run with their engines, and the ends of children that their workers are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from flyte_build.errors import FlyteError
from flyte_build.runner.call import Call
from flyte_build.runner.engines.protocol import Engine
from flyte_build.runner.result import Result

if TYPE_CHECKING:
    from concurrent.futures import Future

    from flyte_build.runner.child import ChildRequest


class ChildPlaces(Protocol):
    """Places for the tasks that the tasks of a run call. Its methods are called in any thread."""

    def place(self, parent: Call, request: ChildRequest) -> tuple[Call, Engine]:
        """Return the call of a child, given its parent's, and its engine. Raises `FlyteError`."""

    def deployed(self, text: str, project: str, domain: str) -> Mapping[str, Any]:
        """Return the document of the deployed task that a reference names.

        Raises `NotFound` and other errors of deployments.
        """

    def close(self) -> None:
        """Stop what is still prepared, and end what holds the places."""


_NOTHING: Mapping[str, Any] = MappingProxyType({})
Answer = Mapping[str, Any]
"""Answer to a worker about a child, as a JSON value: its result, a refusal, or nothing yet."""


class Ending(NamedTuple):
    """End of a child, as its parent is told; `number` counts the ends below one parent."""

    number: int
    id: str
    answer: Answer


def answer(result: Result) -> Answer:
    """Return the answer for a child that has ended."""
    return {"phase": result.phase, **result.document()}


def refused(error: FlyteError) -> Answer:
    """Return the answer for a call that cannot be made."""
    told = {"message": error.what, "why": error.why, "hint": error.hint}
    return {"problem": {"type": type(error).__name__, **told}}


class Placed:
    """An action with its engine, and what its worker is told about its children."""

    is_known = False  # Whether its result comes from an earlier run.
    attempt = 0
    worker = 0  # Number of the one that its attempt shares with others.
    gpus: Sequence[str] = ()  # Those that its attempt may use.

    def __init__(
        self, call: Call, engine: Engine, parent: str | None = None, group: str = ""
    ) -> None:
        self.call, self.engine, self.parent, self.group = call, engine, parent, group
        self.endings: list[Ending] = []  # Those that its worker has not taken note of yet.
        self._told = 0
        self.listeners: list[Future[list[Ending]]] = []

    def tell(self, id: str, answer: Answer) -> None:
        """Tell the worker what became of a child."""
        self._told += 1
        ending = Ending(self._told, id, answer)
        self.endings.append(ending)
        self.answer([ending])

    def taken(self, number: int) -> None:
        """Forget the ends up to a number, of which the worker has taken note."""
        del self.endings[: number - (self._told - len(self.endings))]

    def begin(self, attempt: int, worker: int) -> None:
        """Tell the worker of a new attempt everything anew."""
        self.attempt, self.worker, self._told = attempt, worker, 0
        self.answer([])
        self.endings.clear()

    def end(self) -> None:
        """Forget what only an action that has not ended needs."""
        self.call = self.call._replace(inputs=_NOTHING, context=_NOTHING, packages=())

    def answer(self, endings: list[Ending]) -> None:
        """Answer everyone who waits for the end of a child."""
        listeners, self.listeners = self.listeners, []
        for listener in listeners:
            if listener.set_running_or_notify_cancel():
                listener.set_result(endings)
