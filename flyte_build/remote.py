"""`flyte.remote`: access to runs and their actions, and to deployed tasks.

Names are imported on first use (PEP 562): a task's file may import this in an image that holds only
the worker's modules.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .sdk.actions import Action as Action
    from .sdk.outputs import Outputs as Outputs
    from .sdk.remote_task import Task as Task
    from .sdk.remote_task import TaskDetails as TaskDetails
    from .sdk.runs import Run as Run

_PLACES = {
    "Action": "actions",
    "Outputs": "outputs",
    "Run": "runs",
    "Task": "remote_task",
    "TaskDetails": "remote_task",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'flyte.remote' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f".sdk.{_PLACES[name]}", __package__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_PLACES)
