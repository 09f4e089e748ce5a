"""Requirements of a task on its engine: resources, retries, timeouts.

They are validated here; engines implement them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from math import inf

from flyte_build.errors import DeclarationError, DeclarationTypeError

from .device import Device
from .quantity import amount_of

_Amount = str | int | float


@dataclass(frozen=True)
class Resources:
    """Compute resources of a task.

    An amount is a Kubernetes quantity (`"500m"`, `"1Gi"`), for `cpu` also a number, or a pair of
    request and limit. `gpu` is a number, a type and a number such as `"A100:4"`, or a `Device`.
    Raises `DeclarationError`.
    """

    cpu: _Amount | tuple[_Amount, _Amount] | None = None
    memory: str | tuple[str, str] | None = None
    gpu: str | int | Device | None = None
    disk: str | None = None
    shm: str | None = None

    def __post_init__(self) -> None:
        for name in ("cpu", "memory", "disk", "shm"):
            value = getattr(self, name)
            if isinstance(value, tuple) and (name in ("disk", "shm") or len(value) != 2):
                raise DeclarationError(
                    f"Resources: {name} must be an amount, not {value!r}",
                    why="Only cpu and memory accept a pair of request and limit.",
                )
            for amount in value if isinstance(value, tuple) else () if value is None else (value,):
                if not _is_amount(name, amount):
                    raise DeclarationError(
                        f"Resources: {name} must be a number or a quantity, not {amount!r}"
                        if name == "cpu"
                        else f"Resources: {name} must be a quantity, not {amount!r}",
                        hint='Write 2, 0.5, "500m" or "1Gi".' if name == "cpu" else 'Write "1Gi".',
                    )
        if isinstance(self.gpu, str):
            if self.gpu == "AppleSilicon":
                object.__setattr__(self, "gpu", "AppleSilicon:1")
            self.get_device()
        elif self.gpu is not None and (
            not isinstance(self.gpu, int | Device) or (isinstance(self.gpu, int) and self.gpu < 0)
        ):
            raise DeclarationError(
                f"Resources: gpu must be a number, TYPE:NUMBER or a device, not {self.gpu!r:.100}",
                hint='Write a number, or "A100:4".',
            )

    def get_device(self) -> Device | None:
        """Return the accelerators, if any."""
        if isinstance(self.gpu, int):
            return Device(self.gpu, "GPU") if self.gpu else None
        return Device.parse(self.gpu) if isinstance(self.gpu, str) else self.gpu


@dataclass(frozen=True)
class Backoff:
    """Exponential wait before retries: `base`, multiplied by `factor` each time, at most `cap`.

    `base` and `cap` are seconds or timedeltas. A `factor` above 1 needs a `cap`. Raises
    `DeclarationError`.
    """

    base: timedelta | float = 0.0
    factor: float = 1.0
    cap: timedelta | float | None = None

    def __post_init__(self) -> None:
        for name in ("base", "cap"):
            value = getattr(self, name)
            if not isinstance(value, timedelta | int | float) and (value or name == "base"):
                raise DeclarationTypeError(
                    f"Backoff: {name} must be seconds or a timedelta, not {value!r:.100}"
                )
            if value is not None and not 0 <= in_seconds(value) < inf:
                raise DeclarationError(f"Backoff: {name} must be 0 or more, not {value!r}")
        if not isinstance(self.factor, int | float) or not 1 <= self.factor < inf:
            raise DeclarationError(
                f"Backoff: factor must be a number of 1 or more, not {self.factor!r:.100}"
            )
        if self.factor > 1 and self.cap is None:
            raise DeclarationError(
                "Backoff: cap is missing",
                why="With a factor above 1, the wait would grow without a limit.",
                hint="Add one, such as cap=timedelta(minutes=5).",
            )

    def compute_delay(self, n: int) -> timedelta:
        """Return the wait before the retry `n`, counted from 0. Raises `DeclarationError`."""
        if n < 0:
            raise DeclarationError(f"The number of a retry must be 0 or more, not {n}")
        return timedelta(seconds=self.seconds(n + 2))

    def seconds(self, attempt: int) -> float:
        """Return the wait before an attempt in seconds; attempt 2 is the first retry."""
        try:
            wait = in_seconds(self.base) * self.factor ** (attempt - 2)
        except OverflowError:
            wait = inf if in_seconds(self.base) else 0.0
        return wait if self.cap is None else min(wait, in_seconds(self.cap))


@dataclass(frozen=True)
class RetryStrategy:
    """Number of retries of a failed task, and the wait before each."""

    count: int = 0
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 0:
            raise DeclarationError(
                f"RetryStrategy: count must be an int of 0 or more, not {self.count!r:.100}",
                hint="Use 0 to disable retries.",
            )
        if not isinstance(self.backoff, Backoff | None):
            raise DeclarationTypeError(
                f"RetryStrategy: backoff must be a flyte.Backoff, not {self.backoff!r:.100}"
            )


@dataclass(frozen=True)
class Timeout:
    """Limits of a task's time to run, to wait in a queue, and of both together (`deadline`).

    Each is in seconds or a timedelta; 0 means no limit. The deadline spans all attempts.
    """

    max_runtime: timedelta | float | None = None
    max_queued_time: timedelta | float | None = None
    deadline: timedelta | float | None = None


def in_seconds(value: timedelta | float) -> float:
    """Return a duration in seconds. Raises `TypeError` or `ValueError`."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _is_amount(name: str, amount: object) -> bool:
    if not isinstance(amount, str | int | float if name == "cpu" else str):
        return False
    if name == "shm" and amount == "auto":
        return True
    try:
        amount_of(amount)
    except ValueError:
        return False
    return True
