"""`Cache`: whether a task's results may be reused, and what decides that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol, runtime_checkable

from flyte_build.errors import DeclarationError, DeclarationTypeError

Behavior = Literal["auto", "override", "disable"]

_BEHAVIORS: dict[str, Behavior] = {
    "auto": "auto",
    "enable": "auto",
    "enabled": "auto",
    "on": "auto",
    "true": "auto",
    "yes": "auto",
    "override": "override",
    "disable": "disable",
    "disabled": "disable",
    "off": "disable",
    "false": "disable",
    "no": "disable",
    "none": "disable",
}


@runtime_checkable
class CachePolicy(Protocol):
    """An object that computes a part of a task's cache version."""

    def get_version(self, salt: str, params: Any) -> str:
        """Return this part of the version of the task that `params` describes."""
        ...


@dataclass(frozen=True)
class Cache:
    """Cache policy of a task: whether its results may be reused, and what decides that.

    `behavior` is `auto`, `override` (run again, and store the result) or `disable`, or one of their
    aliases, such as `on` and `off`. A number as `max_age` is in seconds. Raises `DeclarationError`.
    """

    behavior: Behavior | str = "auto"
    version_override: str | None = None
    serialize: bool = False
    ignored_inputs: Sequence[str] | str = ()
    salt: str = ""
    policies: Sequence[CachePolicy] | CachePolicy | None = ()
    max_age: timedelta | int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "behavior", _behavior(self.behavior))
        object.__setattr__(self, "max_age", _age(self.max_age))

    def is_enabled(self) -> bool:
        """Return whether results are stored."""
        return self.behavior != "disable"

    def get_ignored_inputs(self) -> tuple[str, ...]:
        """Return the names of the inputs that do not decide the result."""
        ignored = self.ignored_inputs
        return (ignored,) if isinstance(ignored, str) else tuple(ignored)


def cache_of(value: Cache | str | bool | None) -> Cache | Behavior:
    """Return the cache setting of a task or environment, with its aliases resolved.

    Raises `DeclarationError`, which is a `TypeError` if the value has another type.
    """
    if isinstance(value, Cache):
        return value
    if value is None or isinstance(value, bool):
        return "auto" if value else "disable"
    if not isinstance(value, str):
        raise DeclarationTypeError(
            f"cache must be a string or a flyte.Cache, not {value!r:.100}", hint=_HINT
        )
    return _behavior(value)


_HINT = 'Use "auto", "override" or "disable".'


def _behavior(text: Any) -> Behavior:
    behavior = _BEHAVIORS.get(text) if isinstance(text, str) else None
    if behavior is None:
        raise DeclarationError(f"Unknown cache behavior: {text!r:.100}", hint=_HINT)
    return behavior


def _age(age: Any) -> timedelta | None:
    if age is None:
        return None
    if isinstance(age, bool) or not isinstance(age, int | timedelta):
        raise DeclarationTypeError(
            f"Cache: max_age must be a number of seconds or a timedelta, not {age!r:.100}"
        )
    limit = age if isinstance(age, timedelta) else timedelta(seconds=age)
    if limit < timedelta():
        raise DeclarationError(f"Cache: max_age must be 0 or more, not {age!r}")
    return limit
