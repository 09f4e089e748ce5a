"""Inputs and outputs of many types, and how each is written on the command line.

flyte run examples/inputs.py plan --help flyte run examples/inputs.py plan --trip '{"city": "Oslo",
"days": 2}' --start 2026-05-01T08:00:00Z flyte run examples/inputs.py parcel --size small --colour
green --price 9.90 --stops Oslo --stops 2 --letter @LICENSE
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import Enum
from typing import Literal, NamedTuple

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
    summary = (
        f"{trip.city} for {people}"
        + (f" ({', '.join(trip.tags)})" if trip.tags else "")
        + (f": {note}" if note else "")
    )
    return Plan(
        summary,
        start + timedelta(days=trip.days) + 2 * travel_time,
        daily * trip.days * (1 + len(guests)),
    )


@env.task
def divide(dividend: int, divisor: int) -> tuple[int, int]:
    """Several outputs without names: `o0` is the quotient, `o1` the remainder.

    Args:
        dividend: What is divided.
        divisor: By what; zero makes the task fail.
    """
    return divmod(dividend, divisor)


class Colour(Enum):
    """Given by name (`GREEN`) or by value (`green`)."""

    GREEN = "green"
    GREY = "grey"


def full(price: Decimal) -> Decimal:
    """No discount. `--discount inputs:half` names another function."""
    return price


def half(price: Decimal) -> Decimal:
    """Half of the price, to the cent."""
    return (price / 2).quantize(Decimal("0.01"), ROUND_HALF_UP)


@env.task
def parcel(
    size: Literal["small", "large"],
    colour: Colour,
    price: Decimal,
    stops: list[int | str] = [],  # noqa: B006  # The same.
    letter: bytes = b"",
    discount: Callable[[Decimal], Decimal] = full,
) -> dict[str, Decimal | int | str]:
    """Send a parcel.

    Args:
        size: How large it is.
        colour: What it is wrapped in.
        price: What sending it costs.
        stops: Cities, or the hours to wait there.
        letter: What lies in it.
        discount: What makes of the price what is paid.
    """
    route = " > ".join(f"{stop} h" if isinstance(stop, int) else stop for stop in stops)
    return {
        "what": f"a {size} {colour.value} parcel",
        "route": route,
        "letter": len(letter),
        "price": discount(price),
    }
