"""The `local` engine: the calling process itself, for debuggers and notebooks. Nothing is prepared
or captured.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flyte_build.declarations.task import Task
from flyte_build.runner.abort import LOOK, asked
from flyte_build.runner.action import Action
from flyte_build.runner.result import Result
from flyte_build.runner.worker.execute import execute
from flyte_build.runner.worker.sources import Sources

from .protocol import Event

# Seconds by which the start of a process may be wrong: Linux counts from the boot, known to the
# second.
_TICK = 1.0
_GRACE = 1.0  # Seconds between asking a process to end and making it end.


class LocalEngine:
    """Runs an attempt when it is submitted, with the caller's own streams; `load`
    gives the task.
    """

    name = "local"
    acts_on = frozenset(("retries", "env_vars"))

    def __init__(self, load: Callable[[], Task[..., Any]]) -> None:
        self._load = load
        self._running: list[Action] = []
        self._began = 0.0

    def submit(self, action: Action) -> None:
        """Run the attempt to its end. Raises `KeyboardInterrupt` when the run is asked to end, as
        for Ctrl-C.
        """
        action.write()
        os.environ.update(action.call.env)
        self._running, self._began = [action], time.time()
        with _interrupted_when_asked(action.folder):
            sources = Sources(action.call.workspace.root)
            execute(self._load, action.call.inputs, sources).write(action.folder)
        self._running = []

    def wait(self, action: Action, seconds: float | None) -> Event | None:
        """It has ended."""
        result = Result.read(action.folder)
        return Event("succeeded" if result and result.error is None else "failed")

    def cancel(self, action: Action, at_once: bool) -> None:
        """End the processes that were started since the attempt began; the task itself was
        interrupted.
        """
        import psutil

        children = []
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if child.create_time() >= self._began - _TICK:
                    child.kill() if at_once else child.terminate()
                    children.append(child)
        for child in psutil.wait_procs(children, _GRACE)[1]:
            with suppress(psutil.NoSuchProcess):
                child.kill()

    def running(self) -> list[Action]:
        """The attempt that was interrupted, if one was: what was not has ended."""
        return self._running


@contextmanager
def _interrupted_when_asked(folder: str) -> Iterator[None]:
    """Interrupt the body when the run in `folder` is asked to end; only a main thread can be
    interrupted.
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
