"""A worker that carries out several actions at once: coroutines in one event loop.

Each byte on its control comes with three descriptors, of a socket and of an action's output and
error. On the socket come an order, one line of JSON, and then its end when the action is to be
cancelled; the answer is the result. Variables, directory and processes are those of the worker.
"""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import errno
import json
import os
import socket
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from flyte_build.declarations.context import share_process
from flyte_build.runner.result import Result
from flyte_build.runner.sources import Sources

from .execute import OnDemand, context_of, execute_beside, failure, finish, load_task
from .order import action_of, advised, caller_of, end_group, prepare, say
from .preloads import imported
from .process_tree import adopt_orphans
from .routed import Streams, route, streams
from .spawn import CONTROL

_GRACE = 5.0  # Seconds that an idle worker has to end.
_DESCRIPTORS = 3  # Of a seat.
_LONGEST = 1 << 20  # Bytes of the longest order.


def share(order: Mapping[str, Any]) -> NoReturn:
    """Carry out the orders that come, until the control is closed, and end this process."""
    prepare(order)
    adopt_orphans()
    share_process()
    route()
    _Seats(f"{order['folder']}/work").serve()
    _leave(order["folder"])
    finish(0, then=end_group)


def _leave(folder: str) -> None:
    """Remove the worker's directory: the command may be gone, after the end of the run."""
    from flyte_build.runner.action import tidy

    os.chdir("/")
    tidy(folder)


class _Seats:
    """Actions in the event loop of this process, which runs in the directory `work`."""

    def __init__(self, work: str) -> None:
        self._work = work
        self._serving = set[asyncio.Task[None]]()
        self._loop = asyncio.new_event_loop()
        self._loop.set_task_factory(_task)  # type: ignore[arg-type]  # Python 3.11 gives contexts.
        self._is_over = False

    def serve(self) -> None:
        """Run the loop until the control is closed, while no action runs."""
        asyncio.set_event_loop(self._loop)
        _thread.start_new_thread(self._listen, ())
        while not self._is_over:
            # A task of the user's that exits, but not its action, stops the loop.
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()

    def _listen(self) -> None:
        try:
            with socket.socket(fileno=os.dup(CONTROL)) as control:
                while True:
                    data, descriptors, _, _ = socket.recv_fds(control, 1, _DESCRIPTORS)
                    if not data:
                        break
                    if len(descriptors) < _DESCRIPTORS:
                        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                    self._loop.call_soon_threadsafe(partial(self._take, *descriptors))
            self._loop.call_soon_threadsafe(self._end)
            if not self._serving:
                time.sleep(_GRACE)
        finally:  # In any case the group ends, including this process.
            end_group()

    def _end(self) -> None:
        self._is_over = True
        self._loop.stop()

    def _take(self, control: int, out: int, err: int) -> None:
        """Give a seat to the action whose order comes on a socket."""
        serving = self._loop.create_task(self._serve(control, Streams(out, err)))
        self._serving.add(serving)  # The loop itself keeps no task alive.
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, control: int, own: Streams) -> None:
        reader, writer = await asyncio.open_unix_connection(
            sock=socket.socket(fileno=control), limit=_LONGEST
        )
        with suppress(ConnectionError):  # The command is gone, and this process is about to.
            if line := await reader.readline():
                try:
                    result = await self._carried_out(json.loads(line), reader, own)
                except Exception as error:  # Whatever it is, the command must not wait forever.
                    result = failure(error, Sources(""))
                writer.write(result.encoded(packages=imported()) + b"\n")
                await writer.drain()
        own.close()
        writer.close()

    async def _carried_out(
        self, order: Mapping[str, Any], reader: asyncio.StreamReader, own: Streams
    ) -> Result:
        """Return the result of an order, which is cancelled as soon as nothing more can be read."""
        context = contextvars.copy_context()
        context.run(streams.set, own)
        action = action_of(order)
        sources = Sources.parse(action)
        caller = caller_of(order, action, sources)
        running = self._loop.create_task(
            execute_beside(
                partial(load_task, action["module"], action["variable"]),
                action["inputs"],
                sources,
                context_of(action, order["folder"], "remote", caller),
            ),
            context=context,
        )
        watching = self._loop.create_task(reader.read())
        watching.add_done_callback(lambda _: running.cancel())
        await asyncio.wait([running])
        is_asked = watching.done()
        watching.cancel()
        result = (
            failure(asyncio.CancelledError(), sources) if running.cancelled() else running.result()
        )
        result = advised(result, action, sources, self._work)
        if result.error and result.error.traceback and not is_asked:
            context.run(say, result.error.traceback)
        await _end([task for task in own.tasks if task is not running])
        if isinstance(caller, OnDemand) and caller.is_used:
            _thread.start_new_thread(caller.close, ())  # Threads of the loop may all be busy.
        return result


def _task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """Return a task that its action, if it belongs to one, takes note of."""
    task = asyncio.Task(coroutine, loop=loop, **options)
    context = options.get("context")
    own = context.get(streams) if context else streams.get()
    if own:
        own.tasks.add(task)
    return task


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel tasks that an action has left, as `asyncio.run` does."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
