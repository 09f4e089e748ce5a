"""The `local` engine: the calling process itself, for debuggers and notebooks. Nothing is prepared or captured."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flyte_build.task import Task

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
        """Run the attempt to its end."""
        action.write()
        os.environ.update(action.env)
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
