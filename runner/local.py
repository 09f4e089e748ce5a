"""The `local` engine: the calling process itself, for debuggers and notebooks. Nothing is prepared or captured."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flyte_build.task import Task

from .aborting import LOOK, asked
from .action import Action, write_result
from .engine import Event
from .execution import execute


class LocalEngine:
    """Runs an attempt when it is submitted, with the caller's own streams; `load` gives the task."""

    name = "local"
    acts_on = frozenset(("retries", "env_vars"))

    def __init__(self, load: Callable[[], Task[..., Any]]) -> None:
        self._load = load

    def submit(self, action: Action) -> None:
        """Run the attempt to its end. Raises `KeyboardInterrupt` when the run is asked to end, as for Ctrl-C."""
        action.write()
        os.environ.update(action.env)
        with _interrupted_when_asked(action.folder):
            write_result(action.folder, execute(self._load, action.inputs, action.root))

    def wait(self, action: Action, seconds: float | None) -> Event | None:
        """It has ended."""
        result = action.result()
        return Event("succeeded" if result and result["phase"] == "succeeded" else "failed")

    def cancel(self, action: Action, at_once: bool) -> None:
        """Whoever could ask for it is the process itself."""

    def running(self) -> list[Action]:
        """None: what is submitted has ended."""
        return []


@contextmanager
def _interrupted_when_asked(folder: str) -> Iterator[None]:
    """Interrupt the body when the run in `folder` is asked to end; only a main thread can be interrupted."""
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
