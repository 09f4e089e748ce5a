"""Policies of actions, as their tasks declare them."""

from __future__ import annotations

from flyte_build.declarations.spec import TaskSpec
from flyte_build.runner.limits import Limits

from .machine import Policy
from .slots import Slots


def policy_of(task: TaskSpec, lost_retries: int) -> Policy:
    """Return the policy of a task's actions.

    A task that declares no processors takes one.
    """
    operational = task.operational
    limits = Limits.of(operational.options.get("resources") or {}, requests=True)
    return Policy(
        retries=operational.retries,
        backoff=operational.backoff,
        lost_retries=lost_retries,
        max_queued=operational.max_queued,
        max_runtime=operational.timeout,
        deadline=operational.deadline,
        needs=Slots(
            cpu=1.0 if limits.cpu is None else limits.cpu,
            memory=limits.memory or 0,
            gpu=limits.gpus,
            actions=1,
        ),
    )
