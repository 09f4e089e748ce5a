"""`Trigger`: runs of a deployed task that start by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from flyte_build.errors import DeclarationError, DeclarationTypeError

from .automation import Cron, FixedRate, OnArtifact
from .notification import NamedRule, Notification
from .serialize import Documented


@dataclass(frozen=True)
class TriggerValue(Documented):
    """A value that is only known when a trigger fires: its time, or what has triggered it."""

    source: str
    key: str | None = None

    def document(self) -> dict[str, Any]:
        """Return this as a JSON value."""
        return {"source": self.source, **({"key": self.key} if self.key else {})}


TriggerTime = TriggerValue("time")
"""The time at which a schedule fires."""

TriggeredArtifact = TriggerValue("artifact")
"""The artifact whose creation has triggered the run."""


def TriggeredPartition(key: str) -> TriggerValue:
    """Return the value of a partition of the artifact that has triggered the run."""
    if not key:
        raise DeclarationError("TriggeredPartition: key must not be empty")
    return TriggerValue("partition", key)


@dataclass(frozen=True)
class Trigger(Documented):
    """A run of a deployed task that starts by itself, with its inputs and options.

    Without an `automation` it only starts on request. Raises `DeclarationError`.
    """

    name: str
    automation: Cron | FixedRate | OnArtifact | None = None
    description: str = ""
    auto_activate: bool = True
    inputs: Mapping[str, Any] | None = None
    env_vars: Mapping[str, str] | None = None
    interruptible: bool | None = None
    overwrite_cache: bool = False
    queue: str | None = None
    max_action_concurrency: int | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    notifications: NamedRule | Notification | tuple[Notification, ...] | None = None
    custom_context: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise self._wrong_type("name", "a string")
        if not self.name:
            raise DeclarationError("Trigger: name must not be empty")
        if not isinstance(self.automation, Cron | FixedRate | OnArtifact | None):
            raise self._wrong_type("automation", "a Cron, a FixedRate or an OnArtifact")
        for name in _MAPPINGS:
            if not isinstance(getattr(self, name), Mapping | None):
                raise self._wrong_type(name, "a dict")
        limit = self.max_action_concurrency
        if limit is not None and (not isinstance(limit, int) or limit == 1 or limit < 0):
            raise DeclarationError(
                f"Trigger {self.name!r}: max_action_concurrency must be 2 or more, not {limit!r}",
                why="A task that waits for another one takes one of the places.",
                hint="Use 0 or None for the default.",
            )
        notifications = self.notifications
        if isinstance(notifications, list):
            notifications = tuple(notifications)
            object.__setattr__(self, "notifications", notifications)
        for each in notifications if isinstance(notifications, tuple) else (notifications,):
            if not isinstance(each, Notification | NamedRule | None):
                raise self._wrong_type("notifications", "notifications of flyte.notify")
        self._check_bound()

    def _wrong_type(self, name: str, expected: str) -> DeclarationTypeError:
        return DeclarationTypeError(
            f"Trigger {self.name!r}: {name} must be {expected}, not {getattr(self, name)!r:.100}"
        )

    def _check_bound(self) -> None:
        kind = "artifact" if isinstance(self.automation, OnArtifact) else "time"
        artifacts = 0
        for name, value in self.bound.items():
            if (value.source == "time") != (kind == "time") or self.automation is None:
                raise DeclarationError(
                    f"The trigger {self.name!r} cannot bind the input {name!r}",
                    why=f"It is not triggered by {_SOURCES[value.source]}.",
                )
            artifacts += value.source == "artifact"
        if artifacts > 1:
            raise DeclarationError(
                f"The trigger {self.name!r} cannot bind more than one input to the artifact",
                hint="Use TriggeredArtifact once.",
            )

    @property
    def bound(self) -> dict[str, TriggerValue]:
        """The inputs whose values are only known when the trigger fires."""
        inputs = (self.inputs or {}).items()
        return {name: value for name, value in inputs if isinstance(value, TriggerValue)}

    def document(self) -> dict[str, Any]:
        """Return this as a value of JSON and of the inputs: the fields that are set.

        `bound` has the inputs whose values are only known when the trigger fires.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        bound, given = self.bound, self.inputs or {}
        values["inputs"] = {name: value for name, value in given.items() if name not in bound}
        values["bound"] = bound
        return {
            name: value
            for name, value in values.items()
            if value or (value is False and name != "overwrite_cache")
        }

    @classmethod
    def _scheduled(
        cls, name: str, description: str, cron: str, key: str | None, options: dict[str, Any]
    ) -> Trigger:
        bound = {} if key is None else {key: TriggerTime}
        inputs = {**bound, **(options.pop("inputs", None) or {})}
        named = {"name": name, "description": description, **options}
        if unknown := sorted(named.keys() - _SCHEDULABLE):
            raise DeclarationTypeError(f"Trigger.{name} has no option {unknown[0]!r}")
        return cls(automation=Cron(cron), inputs=inputs, **named)

    @classmethod
    def minutely(cls, trigger_time_input_key: str | None = None, **options: Any) -> Trigger:
        """Return a trigger for each minute; the input of the given name receives the time."""
        return cls._scheduled(
            "minutely", "Runs every minute", "* * * * *", trigger_time_input_key, options
        )

    @classmethod
    def hourly(cls, trigger_time_input_key: str | None = None, **options: Any) -> Trigger:
        """Return a trigger for each full hour; the input of the given name receives the time."""
        return cls._scheduled(
            "hourly", "Runs every hour", "0 * * * *", trigger_time_input_key, options
        )

    @classmethod
    def daily(cls, trigger_time_input_key: str | None = None, **options: Any) -> Trigger:
        """Return a trigger for each midnight; the input of the given name receives the time."""
        return cls._scheduled(
            "daily", "Runs every day at midnight", "0 0 * * *", trigger_time_input_key, options
        )

    @classmethod
    def weekly(cls, trigger_time_input_key: str | None = None, **options: Any) -> Trigger:
        """Return a trigger for Sunday's midnight; the input of the given name receives the time."""
        return cls._scheduled(
            "weekly", "Runs on Sundays at midnight", "0 0 * * 0", trigger_time_input_key, options
        )

    @classmethod
    def monthly(cls, trigger_time_input_key: str | None = None, **options: Any) -> Trigger:
        """Return a trigger for the first of a month; the input of the given name gets the time."""
        return cls._scheduled(
            "monthly", "Runs on the first of a month", "0 0 1 * *", trigger_time_input_key, options
        )


_MAPPINGS = ("inputs", "env_vars", "labels", "annotations", "custom_context")
_SOURCES = {"time": "a schedule", "artifact": "an artifact", "partition": "an artifact"}
_SCHEDULABLE = {field.name for field in fields(Trigger)} - {"automation", "notifications"}
