"""The `local` engine: tasks run in the calling process, for debuggers and notebooks.

Nothing is prepared or captured.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from flyte_build.declarations.context import Caller, enter_process
from flyte_build.declarations.task import Task
from flyte_build.runner.abort import LOOK, asked
from flyte_build.runner.action import Action
from flyte_build.runner.result import Result
from flyte_build.runner.signals import Stopped
from flyte_build.runner.sources import Sources
from flyte_build.runner.worker.execute import OnDemand, context_of, execute

from .protocol import Event, Waits
from .time_limit import Limit, time_limit

if TYPE_CHECKING:
    from flyte_build.runner.history.actions import Actions

# Error of a process's start time, in seconds: on Linux it is relative to the boot, which is known
# to the second.
_TICK = 1.0
_LATE = ("MaxRuntimeExceededError", "DeadlineExceededError")
_GRACE = 1.0  # Seconds between asking a process to end and killing it.


class LocalEngine:
    """Engine that runs attempts in `submit`, with the caller's streams.

    `load` returns the task, and `actions_of` the recorder for the children of a run. `note` takes
    sentences for the user.
    """

    name = "local"
    runs_here = True
    acts_on = frozenset(("retries", "timeout", "env_vars"))

    def __init__(
        self,
        load: Callable[[], Task[..., Any]],
        actions_of: Callable[[str], Actions],
        note: Callable[[str], None],
    ) -> None:
        self._load, self._actions_of, self._note = load, actions_of, note
        self._running: list[Action] = []
        self._begun: set[tuple[str, int]] = set()
        self._over: list[Event] = []
        self._began = 0.0
        self._limit: Limit | None = None

    def submit(self, action: Action) -> None:
        """Run the attempt to its end, unless it has run already (same action, same attempt).

        Raises `KeyboardInterrupt` when the run is aborted, as for Ctrl-C; the attempt has ended
        then.
        """
        if (action.id, action.attempt) in self._begun:
            return
        self._begun.add((action.id, action.attempt))
        action.write()
        os.environ.update(action.call.env, FLYTE_ATTEMPT_NUMBER=str(action.attempt - 1))
        self._running, self._began = [action], time.time()
        sources = Sources(action.call.workspace.root)
        calls = OnDemand(partial(self._calls, action, sources))
        context = context_of(action.document(), action.folder, "local", calls)
        enter_process(context)  # For threads that the task starts.
        try:
            # Its deadline spans all attempts.
            limit = self._limit = self._limit or Limit(action.call.task)
            with (
                _interrupted_when_asked(action.folder),
                time_limit(limit.seconds, limit.error),
            ):
                result = execute(self._load, action.call.inputs, sources, context)
        except (KeyboardInterrupt, Stopped):
            self._end_children()
            self._over.append(Event(action, "cancelled"))
            raise
        else:
            if result.error and result.error.type == "DeadlineExceededError":
                result = result._replace(error=result.error._replace(is_final=True))
            result.write(action.folder)
            self._over.append(Event(action, _kind(result)))
        finally:
            self._running = []
            enter_process(None)

    def waits(self) -> Waits:
        """Return no condition, since attempts end in `submit`."""
        return Waits(seconds=0.0 if self._over else None)

    def events(self) -> list[Event]:
        """Return the attempts that have ended."""
        over, self._over = self._over, []
        return over

    def cancel(self, action: Action, at_once: bool) -> None:
        """Do nothing: an attempt ends in `submit`."""

    def running(self) -> list[Action]:
        """Return the attempt that runs, if any."""
        return self._running

    def close(self) -> None:
        """Do nothing: nothing is left."""

    def _calls(self, action: Action, sources: Sources) -> Caller:
        from .local_calls import LocalCalls, LocalRun

        run = LocalRun(partial(self._actions_of, action.run), self._note, sources)
        return LocalCalls(run, action.id)

    def _end_children(self) -> None:
        """End the processes that were started since the attempt began."""
        import psutil

        children = []
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if child.create_time() >= self._began - _TICK:
                    child.terminate()
                    children.append(child)
        for child in psutil.wait_procs(children, _GRACE)[1]:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _kind(result: Result) -> Literal["succeeded", "failed", "timed_out"]:
    if result.error is None:
        return "succeeded"
    return "timed_out" if result.error.type in _LATE else "failed"


@contextmanager
def _interrupted_when_asked(folder: str) -> Iterator[None]:
    """Interrupt the body when an abort of the run in `folder` is requested.

    This works only in the main thread, since no other can be interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main, ended = threading.get_ident(), threading.Event()

    def look() -> None:
        while not ended.wait(LOOK):
            if asked(folder):
                signal.pthread_kill(main, signal.SIGINT)
                return

    watcher = threading.Thread(target=look, name="flyte-abort", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
