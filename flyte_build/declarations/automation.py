"""Events that start the run of a trigger: `Cron`, `FixedRate` and `OnArtifact`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from flyte_build.errors import DeclarationError, DeclarationTypeError

from .serialize import Documented

_SHORTCUT = re.compile(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly|every \S+)\Z")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Least and greatest number of each field of a cron expression, and its names, from the least on.
_CRON_FIELDS: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, _MONTHS),
    (0, 7, _DAYS),
)


@dataclass(frozen=True)
class Cron(Documented):
    """A schedule: a cron expression of five fields, in a time zone such as `Europe/Berlin`.

    Raises `DeclarationError`.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        for name in ("expression", "timezone"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise DeclarationTypeError(f"Cron: {name} must be a string, not {value!r:.100}")
        if not self.timezone:
            raise DeclarationError("Cron: timezone must not be empty", hint='Use "UTC".')
        if not _is_cron(self.expression):
            raise DeclarationError(
                f"{self.expression!r:.100} is not a valid cron expression",
                why="It has five fields: minute, hour, day, month and day of the week.",
                hint='Write "0 6 * * MON-FRI", or "@daily".',
            )

    @property
    def timezone_expression(self) -> str:
        """The expression with its time zone."""
        return f"CRON_TZ={self.timezone} {self.expression}"

    def document(self) -> dict[str, Any]:
        """Return this as a JSON value."""
        return {"kind": "cron", "expression": self.expression, "timezone": self.timezone}


@dataclass(frozen=True)
class FixedRate(Documented):
    """A schedule: every `interval_minutes`, from `start_time` (default: the time of deployment).

    Raises `DeclarationError`.
    """

    interval_minutes: int
    start_time: datetime | None = None

    def __post_init__(self) -> None:
        minutes, start = self.interval_minutes, self.start_time
        if isinstance(minutes, bool) or not isinstance(minutes, int):
            raise DeclarationTypeError(
                f"FixedRate: interval_minutes must be an int, not {minutes!r:.100}"
            )
        if minutes < 1:
            raise DeclarationError(f"FixedRate: interval_minutes must be 1 or more, not {minutes}")
        if not isinstance(start, datetime | None):
            raise DeclarationTypeError(
                f"FixedRate: start_time must be a datetime, not {start!r:.100}"
            )

    def document(self) -> dict[str, Any]:
        """Return this as a JSON value."""
        start = self.start_time and self.start_time.isoformat()
        return {
            "kind": "fixed_rate",
            "interval_minutes": self.interval_minutes,
            "start_time": start,
        }


@dataclass(frozen=True, init=False)
class OnArtifact(Documented):
    """The creation of a version of an artifact, with certain partitions if some are given.

    Further keywords are partitions, too: `OnArtifact("model", region="eu")`. Raises
    `DeclarationError`.
    """

    name: str
    version: str | None = None
    partitions: Mapping[str, str] | None = None

    def __init__(
        self,
        name: str,
        version: str | None = None,
        partitions: Mapping[str, str] | None = None,
        **partition_kwargs: str,
    ) -> None:
        if not name:
            raise DeclarationError("OnArtifact: name must not be empty")
        given = {**(partitions or {}), **partition_kwargs}
        for partition, value in given.items():
            if not isinstance(value, str):
                raise DeclarationTypeError(
                    f"OnArtifact: the partition {partition!r} must be a string, not {value!r:.100}"
                )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "partitions", given or None)

    def document(self) -> dict[str, Any]:
        """Return this as a JSON value."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": "artifact", **values}


def _is_cron(expression: str) -> bool:
    texts = expression.split()
    return bool(_SHORTCUT.match(expression.strip())) or (
        len(texts) == len(_CRON_FIELDS)
        and all(
            _is_cron_part(part, *field)
            for text, field in zip(texts, _CRON_FIELDS, strict=True)
            for part in text.split(",")
        )
    )


def _is_cron_part(part: str, least: int, most: int, names: tuple[str, ...]) -> bool:
    """Return whether `*`, a value or a range, with or without a step, is within its limits."""
    span, slash, step = part.partition("/")
    if slash and not (step.isdecimal() and int(step)):
        return False
    if span in ("*", "?"):
        return True
    values = [
        least + names.index(text.lower())
        if text.lower() in names
        else int(text)
        if text.isdecimal()
        else -1
        for text in span.split("-")
    ]
    return len(values) <= 2 and all(least <= value <= most for value in values)
