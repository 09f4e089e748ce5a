"""What a task asks of the place where it runs: declarations, validated here, acted on
by engines.
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
    """Amounts as numbers or Kubernetes quantities (`"500m"`, `"1Gi"`), or a pair of request and
    limit; `gpu="A100:4"`.
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
                        f"Resources({name}={amount!r}) is no amount",
                        hint='Write 2, 0.5, "500m" or "1Gi".',
                    )
        if isinstance(self.gpu, str) and not _GPU.match(self.gpu):
            raise DeclarationError(
                f"Resources(gpu={self.gpu!r}) is no GPU", hint='Write a number, or "A100:4".'
            )


@dataclass(frozen=True)
class Backoff:
    """How long to wait before each retry: `base` seconds or a timedelta, times `factor` each time,
    at most `cap`.
    """

    base: timedelta | float = 0.0
    factor: float = 2.0
    cap: timedelta | float | None = None

    def seconds(self, attempt: int) -> float:
        """The wait before the given attempt (2 is the first retry), in seconds."""
        wait = _seconds(self.base) * self.factor ** (attempt - 2)
        return wait if self.cap is None else min(wait, _seconds(self.cap))


@dataclass(frozen=True)
class RetryStrategy:
    """How often a task that failed is tried again, and after which wait."""

    count: int = 0
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise DeclarationError(
                f"RetryStrategy(count={self.count}) is negative",
                hint="0 means that it is not tried again.",
            )


@dataclass(frozen=True)
class Timeout:
    """Limits in seconds or as timedeltas: of running, of waiting in a queue, and of
    both together.
    """

    max_runtime: timedelta | float | None = None
    max_queued_time: timedelta | float | None = None
    deadline: timedelta | float | None = None

    def seconds(self) -> float | None:
        """How long one attempt may run, or None."""
        limits = [
            _seconds(limit) for limit in (self.max_runtime, self.deadline) if limit is not None
        ]
        return min(limits) if limits else None


@dataclass(frozen=True)
class Cache:
    """Whether a task's results may be used again, and what decides it."""

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
                f"Cache(behavior={self.behavior!r}) is unknown",
                hint='Write "auto", "override" or "disable".',
            )


@dataclass(frozen=True)
class Secret:
    """A secret's name, and where the task finds it. Its value is never part of a key, a record or a
    log.
    """

    key: str
    group: str | None = None
    mount: str | None = None
    as_env_var: str | None = field(default=None)


@dataclass(frozen=True)
class ReusePolicy:
    """Workers that are kept for the next action. Accepted; an engine that cannot keep
    them says so.
    """

    replicas: int | tuple[int, int] = 1
    idle_ttl: timedelta | float | None = None
    concurrency: int = 1
    scaledown_ttl: timedelta | float | None = None
    scope: str = "auto"


def _seconds(value: timedelta | float) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)
