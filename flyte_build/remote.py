"""`flyte.remote`: what is not in a user's own file: earlier runs, and tasks that are deployed."""

from __future__ import annotations

from .remotetask import Task as Task
from .remotetask import TaskDetails as TaskDetails
from .runs import Outputs as Outputs
from .runs import Run as Run
