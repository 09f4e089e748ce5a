"""Policies of actions, as their tasks declare them."""

from __future__ import annotations

from flyte_build.declarations.spec import TaskSpec
from flyte_build.runner.child import CONDITION
from flyte_build.runner.limits import Limits

from .machine import Policy
from .slots import Slots


def policy_of(task: TaskSpec, lost_retries: int) -> Policy:
    """Return the policy of a task's actions.

    A task that declares no processors takes one, and a condition takes nothing.
    """
    operational = task.operational
    if task.semantic.environment == CONDITION:
        return Policy(lost_retries=lost_retries, needs=Slots())
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
