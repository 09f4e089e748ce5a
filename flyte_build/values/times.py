"""`datetime`, `date` and `timedelta`, whose wire values are strings in ISO 8601."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from flyte_build.text.units import parse_datetime, parse_timedelta

from .type import ABSENT, Mismatch, Scalar, Type, Wire


class DateTime(Scalar):
    """Type of `datetime`; a value without an offset keeps having none."""

    details = "as in 2026-01-31T12:00:00Z or 'now - 2 days'"
    sample = "2026-01-31T12:00:00Z"

    def read(self, text: str) -> Wire:
        """Return ISO 8601, with the offset if there is one. Raises `ValueError`."""
        return parse_datetime(text).isoformat()

    def load(self, wire: Wire) -> Any:
        """Return a `datetime`."""
        return datetime.fromisoformat(wire)

    def dump(self, value: Any) -> Wire:
        """Return ISO 8601. Raises `Mismatch`."""
        if not isinstance(value, datetime):
            raise Mismatch(self.name, value)
        return value.isoformat()


class Date(Scalar):
    """Type of `date`."""

    details = "as in 2026-01-31 or 'today + 2 days'"
    sample = "2026-01-31"

    def read(self, text: str) -> Wire:
        """Return ISO 8601; a time of day in `text` is dropped. Raises `ValueError`."""
        return parse_datetime(text).date().isoformat()

    def load(self, wire: Wire) -> Any:
        """Return a `date`."""
        return date.fromisoformat(wire)

    def dump(self, value: Any) -> Wire:
        """Return ISO 8601. Raises `Mismatch`."""
        if not isinstance(value, date) or isinstance(value, datetime):
            raise Mismatch(self.name, value)
        return value.isoformat()


class Duration(Scalar):
    """Type of `timedelta`; a number stands for seconds."""

    details = "as in 90s, 1:24 or PT1H30M"
    sample = "90s"

    def read(self, text: str) -> Wire:
        """Return ISO 8601, exact to the microsecond. Raises `ValueError`."""
        return _iso(parse_timedelta(text))

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the ISO 8601 of a JSON string or of seconds. Raises `Mismatch`."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self.parse(str(value))
        return super().check(value)

    def load(self, wire: Wire) -> Any:
        """Return a `timedelta`."""
        return parse_timedelta(wire)

    def dump(self, value: Any) -> Wire:
        """Return ISO 8601, exact to the microsecond. Raises `Mismatch`."""
        if not isinstance(value, timedelta):
            raise Mismatch(self.name, value)
        return _iso(value)


def _iso(value: timedelta) -> str:
    """Return days and seconds, with one minus for the whole: `PT90S`, `-P1DT0.5S`."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    seconds = (
        f"{value.seconds}.{value.microseconds:06}".rstrip("0").rstrip(".")
        if value.microseconds
        else str(value.seconds)
    )
    days = f"{value.days}D" if value.days else ""
    return f"{sign}P{days}T{seconds}S" if seconds != "0" or not days else f"{sign}P{days}"


TYPES: dict[str, Type] = {
    "datetime": DateTime("datetime"),
    "date": Date("date"),
    "timedelta": Duration("timedelta"),
}
