"""Requests of workers for child actions, and the ids of children."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import encode
from flyte_build.declarations.spec import TaskSpec
from flyte_build.values.type import Wires

from .action import CONDITION

INLINE = 10 << 20
"""Bytes of JSON that a task may take from, and return to, its caller, unless it says otherwise."""


def inline_error(task: str, what: str, size: int, limit: int) -> str:
    """Return the message for inputs or outputs (`what`) of a child that are too large."""
    return (
        f"The {what} of {task} take {size / 2**20:,.1f} MiB as JSON, more than its"
        f" max_inline_io_bytes of {limit / 2**20:,.1f} MiB"
    )


def child_id(parent: str, task: str, inputs: Wires, occurrence: int) -> str:
    """Return the id of a child action.

    It depends on the id of the parent, on the task's full name (with the pin, if it is deployed),
    on the wire inputs, and on how many equal calls the parent has made before (`occurrence`). So
    the same program gives the same ids.
    """
    text = json.dumps(dict(inputs), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "a" + Digest.of(encode(["flyte action", 1, parent, task, text, occurrence])).hex[:15]


def next_child_id(parent: str, task: str, inputs: Wires, calls: Counter[str]) -> tuple[str, int]:
    """Return the id of the next child action, and how many equal calls its parent made before.

    They are those in `calls`, to which this one is added.
    """
    first = child_id(parent, task, inputs, 0)
    occurrence = calls[first]
    calls[first] += 1
    return child_id(parent, task, inputs, occurrence) if occurrence else first, occurrence


@dataclass(frozen=True, kw_only=True)
class ChildRequest:
    """Request of attempt `parent_attempt` of an action to call a task, with wire inputs.

    `deployment` names a deployed task with its pin; it is "" for a task of the caller's own code.
    `group` names the group of calls that it belongs to, or is "". `context` are values that the
    caller passes on, and `packages` installed ones that it has imported itself.
    """

    id: str
    parent: str
    parent_attempt: int
    task: TaskSpec
    inputs: Wires
    deployment: str = ""
    group: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    packages: Sequence[str] = ()

    @property
    def is_condition(self) -> bool:
        """Whether it waits for an answer."""
        return self.task.semantic.environment == CONDITION

    @classmethod
    def parse(cls, id: str, document: Mapping[str, Any], task: TaskSpec) -> ChildRequest:
        """Return the request to call a task from a JSON value.

        Raises `LookupError`, `TypeError`, `ValueError` or `AttributeError` if it is invalid, or if
        `id` is not the one that follows from it.
        """
        inputs = dict(document["inputs"])
        deployment = str(document["deployment"])
        name = deployment or task.name
        right = child_id(document["parent"], name, inputs, int(document["occurrence"]))
        if id != right:
            raise ValueError(f"The id of this call must be {right}, not {id!r:.40}")
        return cls(
            id=id,
            parent=document["parent"],
            parent_attempt=int(document["attempt"]),
            task=task,
            inputs=inputs,
            deployment=deployment,
            group=str(document["group"]),
            context={str(name): str(text) for name, text in document["context"].items()},
            packages=[str(name) for name in document["packages"]],
        )
