"""Declared resources of a task, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_UNITS = {
    "m": 1e-3,
    "k": 1e3,
    "Ki": 2**10,
    "M": 1e6,
    "Mi": 2**20,
    "G": 1e9,
    "Gi": 2**30,
    "T": 1e12,
    "Ti": 2**40,
}


@dataclass(frozen=True, kw_only=True)
class Limits:
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
            cpu=_amount(cpu),
            memory=_bytes(memory),
            shm=None if shm == "auto" else _bytes(shm),
            gpus=_count(resources.get("gpu")),
        )


def _amount(value: Any) -> float | None:
    """Return an amount in Kubernetes' notation (kubernetes.io, "Quantity") as a number."""
    if value is None or isinstance(value, int | float):
        return value
    unit = next((unit for unit in ("Ki", "Mi", "Gi", "Ti", *_UNITS) if value.endswith(unit)), "")
    return float(value.removesuffix(unit)) * _UNITS.get(unit, 1)


def _bytes(value: Any) -> int | None:
    amount = _amount(value)
    return None if amount is None else int(amount)


def _count(value: Any) -> int:
    if isinstance(value, str):
        return int(value.rpartition(":")[2])
    return value or 0
