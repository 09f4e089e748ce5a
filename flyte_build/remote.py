"""`flyte.remote`: access to earlier runs and to deployed tasks."""

from __future__ import annotations

from .sdk.remote_task import Task as Task
from .sdk.remote_task import TaskDetails as TaskDetails
from .sdk.runs import Outputs as Outputs
from .sdk.runs import Run as Run
