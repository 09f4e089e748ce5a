"""Inputs and outputs of many types, and how each is written on the command line.

flyte run examples/inputs.py plan --help
flyte run examples/inputs.py plan --trip '{"city": "Oslo", "days": 2}' --start 2026-05-01T08:00:00Z
flyte run examples/inputs.py parcel --size small --colour grey --price 9 --stops 2 --letter @LICENSE
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
    """A trip; `days` and `tags` are optional."""

    city: str
    days: int = 1
    tags: list[str] = field(default_factory=list)


class Plan(NamedTuple):
    """Outputs of `plan`, named like the fields of this tuple."""

    summary: str
    end: datetime
    cost: float


@env.task
def plan(
    trip: Trip,
    start: datetime,
    travel_time: timedelta = timedelta(hours=2),
    prices: dict[str, float] = {"bed": 80.0},  # noqa: B006  # A task never modifies its defaults.
    guests: list[str] = [],  # noqa: B006  # The same.
    note: str | None = None,
    insured: bool = False,
) -> Plan:
    """Plan a trip.

    Args:
        trip: The city, and the number of days.
        start: The time of departure.
        travel_time: The duration of one way.
        prices: The price per day of each item.
        guests: The names of your companions.
        note: Any remark.
        insured: Whether to add insurance, for 9 per day.
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
    """Divide two numbers: the output `o0` is the quotient, `o1` the remainder.

    Args:
        dividend: The number to divide.
        divisor: The number to divide by; with zero, the task fails.
    """
    return divmod(dividend, divisor)


class Colour(Enum):
    """Colours, which are given by name (`GREEN`) or value (`green`)."""

    GREEN = "green"
    GREY = "grey"


def full(price: Decimal) -> Decimal:
    """Return the full price; `--discount inputs:half` selects another function."""
    return price


def half(price: Decimal) -> Decimal:
    """Return half of the price, rounded to the cent."""
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
        size: The size of the parcel.
        colour: The colour of the wrapping.
        price: The price of sending it.
        stops: The stops: cities, or hours to wait in the last one.
        letter: The contents of the parcel.
        discount: A function from the price to the amount to pay.
    """
    route = " > ".join(f"{stop} h" if isinstance(stop, int) else stop for stop in stops)
    return {
        "what": f"a {size} {colour.value} parcel",
        "route": route,
        "letter": len(letter),
        "price": discount(price),
    }
