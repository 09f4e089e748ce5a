"""Beginnings of children: a call whose place takes long to find begins later, others go on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from flyte_build.errors import FlyteError, RuntimeSystemError

from .machine import Ended
from .placed import Answer, Placed, answer, refused

if TYPE_CHECKING:
    from flyte_build.runner.child import ChildRequest

    from .controller import Controller

T = TypeVar("T")

_SOON = 0.2  # Seconds in which nearly all calls have a place.
_THREADS = 32  # Environments whose places are looked for at the same time.


class Placing:
    """Calls that have no place yet. Its methods are called in one event loop."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._calls: dict[str, ChildRequest] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="flyte-place")
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def begin(self, calls: Sequence[ChildRequest]) -> dict[str, Answer]:
        """Begin calls, and return the answers that there are soon, by the ids of the calls.

        The others are told among the ends of their parent's children.
        """
        groups: defaultdict[str, list[ChildRequest]] = defaultdict(list)
        for call in calls:
            self._calls[call.id] = call
            groups[call.deployment or call.task.semantic.environment].append(call)
        beginnings = {
            asyncio.ensure_future(self._begin(environment, group)): group
            for environment, group in groups.items()
        }
        if beginnings:
            await asyncio.wait(beginnings, timeout=_SOON)
        answers: dict[str, Answer] = {}
        for beginning, group in beginnings.items():
            if beginning.done():
                answers |= beginning.result()
            else:
                beginning.add_done_callback(partial(self._tell, group))
        return answers

    def drop(self, id: str) -> bool:
        """Forget a call that has no place yet, and return whether there was one."""
        return self._calls.pop(id, None) is not None

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Call a function that may take long; the end of the server does not wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def _begin(self, environment: str, calls: list[ChildRequest]) -> dict[str, Answer]:
        async with self._locks[environment]:  # More threads would only wait for the first.
            places = await self.in_thread(partial(self._places, calls))
        wanted = [
            (call, placed)
            for call, placed in zip(calls, places, strict=True)
            if self._calls.get(call.id) is call
        ]
        for call, _ in wanted:
            del self._calls[call.id]
        submitted = self._controller.inbox.ask(
            lambda: {c.id: self._submit(c, p) for c, p in wanted}
        )
        answers: dict[str, Answer] = await asyncio.wrap_future(submitted)
        return answers

    def _tell(
        self, calls: Sequence[ChildRequest], beginning: asyncio.Future[dict[str, Answer]]
    ) -> None:
        """Tell the attempt that made late calls how those were answered."""
        if beginning.cancelled():
            return
        if error := beginning.exception():  # The callers must not wait forever.
            answers: dict[str, Answer] = {call.id: _failed(error) for call in calls}
        else:
            answers = {id: answer for id, answer in beginning.result().items() if answer}
        tell, first = self._controller.tell, calls[0]
        self._controller.inbox.ask(lambda: tell(first.parent, first.parent_attempt, answers))

    def _places(self, calls: Sequence[ChildRequest]) -> list[Placed | Answer]:
        """Return the places of calls; a task that has none is looked for once, not for each."""
        places: list[Placed | Answer] = []
        for before, call in zip((None, *calls), calls, strict=False):
            is_refused = before and before.task == call.task and not isinstance(places[-1], Placed)
            places.append(places[-1] if is_refused else self._place(call))
        return places

    def _place(self, call: ChildRequest) -> Placed | Answer:
        """Return the place of a call, or the answer why it has none."""
        try:
            return self._controller.place(call)
        except FlyteError as error:
            return refused(error)
        except Exception as error:  # Whatever it is, the caller must not wait forever.
            return _failed(error)

    def _submit(self, call: ChildRequest, placed: Placed | Answer) -> Answer:
        """Begin a call at its place, and return the answer."""
        if not isinstance(placed, Placed):
            return placed
        try:
            result = self._controller.submit(call, placed)
        except Ended as error:
            message = f"The action {error} has ended, or its attempt was stopped"
            return refused(RuntimeSystemError("RuntimeSystemError", message))
        except FlyteError as error:
            return refused(error)
        return {} if result is None else answer(result)


def _failed(error: BaseException) -> Answer:
    message = f"{type(error).__name__}: {error}"
    return refused(RuntimeSystemError("RuntimeSystemError", message))
