"""Inputs and outputs of many types, and how each is written on the command line.

flyte run examples/inputs.py plan --help
flyte run examples/inputs.py plan --trip '{"city": "Oslo", "days": 2}' --start 2026-05-01T08:00:00Z
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import flyte

env = flyte.TaskEnvironment(name="inputs")


@dataclass
class Trip:
    """Where somebody goes; `days` and `tags` may be left out."""

    city: str
    days: int = 1
    tags: list[str] = field(default_factory=list)


class Plan(NamedTuple):
    """A named tuple's fields are the names of the outputs."""

    summary: str
    end: datetime
    cost: float


@env.task
def plan(
    trip: Trip,
    start: datetime,
    travel_time: timedelta = timedelta(hours=2),
    prices: dict[str, float] = {"bed": 80.0},  # noqa: B006  # A task's default is only read.
    guests: list[str] = [],  # noqa: B006  # The same.
    note: str | None = None,
    insured: bool = False,
) -> Plan:
    """Plan a trip.

    Args:
        trip: The city, and how long to stay.
        start: When the journey begins.
        travel_time: How long one way takes.
        prices: What one day costs, by item.
        guests: Who comes along.
        note: Any remark.
        insured: Whether to add an insurance of 9 a day.
    """
    daily = sum(prices.values()) + (9 if insured else 0)
    people = " and ".join(["you", *guests])
    summary = f"{trip.city} for {people}" + (f" ({', '.join(trip.tags)})" if trip.tags else "") + (f": {note}" if note else "")
    return Plan(summary, start + timedelta(days=trip.days) + 2 * travel_time, daily * trip.days * (1 + len(guests)))


@env.task
def divide(dividend: int, divisor: int) -> tuple[int, int]:
    """Several outputs without names: `o0` is the quotient, `o1` the remainder.

    Args:
        dividend: What is divided.
        divisor: By what; zero makes the task fail.
    """
    return divmod(dividend, divisor)
