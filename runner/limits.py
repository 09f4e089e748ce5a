"""Declared resources of a task, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from flyte_build.declarations.quantity import amount_of

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
"""Variable that names a process's GPUs (docs.nvidia.com/cuda, "CUDA Environment Variables")."""


class Limits(NamedTuple):
    """Resource limits of a task.

    `cpu` is a number of processors, which may be a fraction; `memory` and `shm` (shared memory) are
    in bytes. None means the engine's default.
    """

    cpu: float | None = None
    memory: int | None = None
    shm: int | None = None
    gpus: int = 0

    @classmethod
    def of(cls, resources: Mapping[str, Any], *, requests: bool = False) -> Limits:
        """Return the limits in declared resources, which are JSON values.

        They are amounts, or pairs of request and limit, of which the limit is used (or the request,
        with `requests`).
        """
        which, shm = 0 if requests else -1, resources.get("shm")
        cpu, memory = (
            each[which] if isinstance(each, list) else each
            for each in (resources.get("cpu"), resources.get("memory"))
        )
        return cls(
            cpu=None if cpu is None else amount_of(cpu),
            memory=_bytes(memory),
            shm=None if shm == "auto" else _bytes(shm),
            gpus=_count(resources.get("gpu")),
        )


def _bytes(value: Any) -> int | None:
    return None if value is None else int(amount_of(value))


def _count(value: Any) -> int:
    if isinstance(value, str):
        return int(value.rpartition(":")[2])
    return value or 0
