"""Policies of actions, as their tasks declare them."""

from __future__ import annotations

from collections.abc import Callable

from flyte_build.declarations.spec import TaskSpec
from flyte_build.errors import PreparationError
from flyte_build.runner.action import CONDITION
from flyte_build.runner.call import Call
from flyte_build.runner.limits import Limits

from .machine import Policy
from .slots import Claim, Slots


class Policies:
    """Policies of tasks on a machine with `total` slots; `note` takes sentences for the user."""

    def __init__(self, total: Slots, note: Callable[[str], None]) -> None:
        self._total, self._note = total, note
        self._noted: set[str] = set()
        self._known: dict[str, tuple[TaskSpec, Policy]] = {}  # Of the last call of each name.

    def of(self, call: Call) -> Policy:
        """Return the policy of a call, whose claim fits the machine. Raises `PreparationError`."""
        known = self._known.get(call.task.name)
        if known is None or known[0] is not call.task:
            policy = self._made(call)
            known = self._known[call.task.name] = call.task, policy
        return known[1]

    def _made(self, call: Call) -> Policy:
        policy = policy_of(call.task, call.run.lost_retries)
        claim = policy.claim
        note = beyond(call.task, claim.slots, self._total)
        if note and note not in self._noted:
            self._note(note)
            self._noted.add(note)
        return policy._replace(claim=claim._replace(slots=claim.slots.capped(self._total)))


def policy_of(task: TaskSpec, lost_retries: int) -> Policy:
    """Return the policy of a task's actions.

    A task that declares no processors takes one, and a condition takes nothing.
    """
    operational = task.operational
    if task.semantic.environment == CONDITION:
        return Policy(lost_retries=lost_retries, claim=Claim(Slots()))
    limits = Limits.of(operational.options.get("resources") or {}, requests=True)
    return Policy(
        retries=operational.retries,
        backoff=operational.backoff,
        lost_retries=lost_retries,
        max_queued=operational.max_queued,
        max_runtime=operational.timeout,
        deadline=operational.deadline,
        claim=Claim(
            Slots(
                cpu=1.0 if limits.cpu is None else limits.cpu,
                memory=limits.memory or 0,
                gpu=limits.gpus,
                actions=1,
            ),
            *_team(task),
        ),
    )


def _team(task: TaskSpec) -> tuple[str, int, int]:
    """Return the team of workers that serves a task ("" without one), their number and seats."""
    if not (reuse := task.operational.options.get("reusable")):
        return "", 0, 1
    return task.semantic.environment, max(1, reuse["replicas"][1]), reuse["concurrency"]


def beyond(task: TaskSpec, needs: Slots, total: Slots) -> str:
    """Return a note if a task declares more than a machine with `total` slots has, else "".

    Such a task runs alone. Raises `PreparationError` for GPUs that are not there.
    """
    lacking = needs.lacking(total)
    if not lacking:
        return ""
    from flyte_build.text.units import size_text
    from flyte_build.text.wording import plural

    if "gpu" in lacking:
        raise PreparationError(
            f"{task.name} needs {plural(int(needs.gpu), 'GPU')}",
            why=f"This machine has {int(total.gpu) or 'none'}.",
            hint=(
                "Run it on another machine, or declare fewer: Resources(gpu=...). With `--local`,"
                " resources are ignored."
            ),
        )
    parts = []
    if "cpu" in lacking:
        parts.append(f"{needs.cpu:g} processors ({total.cpu:g} here)")
    if "memory" in lacking:
        memory, here = size_text(int(needs.memory)), size_text(int(total.memory))
        parts.append(f"{memory} of memory ({here} here)")
    return f"{task.name} declares {' and '.join(parts)}: it runs alone."
