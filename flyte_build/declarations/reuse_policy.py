"""`ReusePolicy`: workers that are kept for later actions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from flyte_build.errors import DeclarationError

_LEAST = timedelta(seconds=30)


@dataclass(frozen=True)
class ReusePolicy:
    """Policy for workers that are kept for later actions.

    `replicas` is the number of workers, or a pair of the least and the most. All end after
    `idle_ttl` without an action, and surplus workers after `scaledown_ttl`; both are timedeltas or
    seconds, at least 30. Each takes up to `concurrency` actions at once.

    Workers serve all runs of their controller (`scope="global"`) or one (`"run"`); that of a
    command has only one. Raises `DeclarationError`.
    """

    replicas: int | tuple[int, int] = 2
    idle_ttl: timedelta | int = 30
    concurrency: int = 1
    scaledown_ttl: timedelta | int = 30
    scope: Literal["global", "run"] = "global"

    def __post_init__(self) -> None:
        given = self.replicas
        replicas = (given, given) if isinstance(given, int) else given
        if not (
            isinstance(replicas, tuple)
            and len(replicas) == 2
            and all(isinstance(number, int) for number in replicas)
        ):
            raise _refused("replicas", "an int or a tuple of two ints", given)
        if not 0 <= replicas[0] <= replicas[1]:
            raise _refused("replicas", "0 or more, and the least at most the most", given)
        if not isinstance(self.concurrency, int) or self.concurrency < 1:
            raise _refused("concurrency", "an int of 1 or more", self.concurrency)
        if self.scope not in ("global", "run"):
            raise _refused("scope", '"global" or "run"', self.scope)
        object.__setattr__(self, "replicas", replicas)
        for name in ("idle_ttl", "scaledown_ttl"):
            object.__setattr__(self, name, _lifetime(name, getattr(self, name)))

    @property
    def min_replicas(self) -> int:
        """The least number of workers."""
        return self.replicas if isinstance(self.replicas, int) else self.replicas[0]

    @property
    def max_replicas(self) -> int:
        """The largest number of workers."""
        return self.replicas if isinstance(self.replicas, int) else self.replicas[1]


def _lifetime(name: str, value: Any) -> timedelta:
    if not isinstance(value, int | timedelta):
        raise _refused(name, "a number of seconds (an int) or a timedelta", value)
    lifetime = value if isinstance(value, timedelta) else timedelta(seconds=value)
    if lifetime < _LEAST:
        raise _refused(name, "at least 30 seconds", value)
    return lifetime


def _refused(name: str, expected: str, given: Any) -> DeclarationError:
    return DeclarationError(f"ReusePolicy: {name} must be {expected}, not {given!r:.100}")
