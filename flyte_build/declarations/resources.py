"""Requirements of a task on its engine: resources, retries, timeouts, caching, secrets.

They are validated here; engines implement them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from flyte_build.errors import DeclarationError

_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?\Z")
_Amount = str | int | float
_GPU = re.compile(r"[A-Za-z0-9-]+:[1-9][0-9]*\Z")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Compute resources of a task.

    An amount is a number or a Kubernetes quantity (`"500m"`, `"1Gi"`), or a pair of request and
    limit. `gpu` is a number, or a type and a number such as `"A100:4"`.
    """

    cpu: _Amount | tuple[_Amount, _Amount] | None = None
    memory: str | tuple[str, str] | None = None
    gpu: str | int | None = None
    disk: str | None = None
    shm: str | None = None

    def __post_init__(self) -> None:
        for name in ("cpu", "memory", "disk", "shm"):
            value = getattr(self, name)
            for amount in value if isinstance(value, tuple) else () if value is None else (value,):
                if not _QUANTITY.match(str(amount)) and not (name == "shm" and amount == "auto"):
                    raise DeclarationError(
                        f"Resources: {name} must be a number or a quantity, not {amount!r}",
                        hint='Write 2, 0.5, "500m" or "1Gi".',
                    )
        if isinstance(self.gpu, str) and not _GPU.match(self.gpu):
            raise DeclarationError(
                f"Resources: gpu must be a number or TYPE:NUMBER, not {self.gpu!r}",
                hint='Write a number, or "A100:4".',
            )


@dataclass(frozen=True)
class Backoff:
    """Exponential wait before retries: `base`, multiplied by `factor` each time, at most `cap`.

    `base` and `cap` are seconds or timedeltas.
    """

    base: timedelta | float = 0.0
    factor: float = 2.0
    cap: timedelta | float | None = None

    def seconds(self, attempt: int) -> float:
        """Return the wait before an attempt in seconds; attempt 2 is the first retry."""
        wait = in_seconds(self.base) * self.factor ** (attempt - 2)
        return wait if self.cap is None else min(wait, in_seconds(self.cap))


@dataclass(frozen=True)
class RetryStrategy:
    """Number of retries of a failed task, and the wait before each."""

    count: int = 0
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise DeclarationError(
                f"RetryStrategy: count must be 0 or more, not {self.count}",
                hint="Use 0 to disable retries.",
            )


@dataclass(frozen=True)
class Timeout:
    """Limits of a task's time to run, to wait in a queue, and of both together (`deadline`).

    Each is in seconds or a timedelta; 0 means no limit. The deadline spans all attempts.
    """

    max_runtime: timedelta | float | None = None
    max_queued_time: timedelta | float | None = None
    deadline: timedelta | float | None = None


@dataclass(frozen=True)
class Cache:
    """Cache policy of a task: whether its results may be reused, and what decides that."""

    behavior: Literal["auto", "override", "disable"] = "auto"
    version_override: str | None = None
    serialize: bool = False
    ignored_inputs: tuple[str, ...] | str = ()
    salt: str = ""
    policies: tuple[Any, ...] = ()
    max_age: timedelta | None = None

    def __post_init__(self) -> None:
        if self.behavior not in ("auto", "override", "disable"):
            raise DeclarationError(
                f"Unknown cache behavior: {self.behavior!r}",
                hint='Use "auto", "override" or "disable".',
            )


@dataclass(frozen=True)
class Secret:
    """The name of a secret, and the file or environment variable in which the task finds it.

    Its value is never part of a key, a record or a log.
    """

    key: str
    group: str | None = None
    mount: str | None = None
    as_env_var: str | None = field(default=None)


@dataclass(frozen=True)
class ReusePolicy:
    """Policy for workers that are kept for later actions.

    It is always accepted; an engine that cannot keep workers reports that.
    """

    replicas: int | tuple[int, int] = 1
    idle_ttl: timedelta | float | None = None
    concurrency: int = 1
    scaledown_ttl: timedelta | float | None = None
    scope: str = "auto"


def in_seconds(value: timedelta | float) -> float:
    """Return a duration in seconds. Raises `TypeError` or `ValueError`."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)
