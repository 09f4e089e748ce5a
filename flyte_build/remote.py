"""`flyte.remote`: access to runs and their actions, and to deployed tasks."""

from __future__ import annotations

from .sdk.actions import Action as Action
from .sdk.outputs import Outputs as Outputs
from .sdk.remote_task import Task as Task
from .sdk.remote_task import TaskDetails as TaskDetails
from .sdk.runs import Run as Run
