"""Amounts of processors and bytes in Kubernetes' notation: 2, 0.5, `500m`, `1Gi`."""

from __future__ import annotations

import re

_UNITS = {
    "": 1,
    "m": 1e-3,
    "k": 1e3,
    "Ki": 2**10,
    "M": 1e6,
    "Mi": 2**20,
    "G": 1e9,
    "Gi": 2**30,
    "T": 1e12,
    "Ti": 2**40,
}
_QUANTITY = rf"([0-9]+(?:\.[0-9]+)?)({'|'.join(_UNITS)})"  # Most tasks declare none.
_MOST = 2**63 - 1  # What engines and operating systems count with.


def amount_of(value: object) -> float:
    """Return an amount as a number of processors or bytes (kubernetes.io, "Quantity").

    `value` is a number or a quantity. Raises `ValueError` if it is neither, or out of range.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        amount: float = value
    elif isinstance(value, str) and (found := re.fullmatch(_QUANTITY, value)):
        amount = float(found[1]) * _UNITS[found[2]]
    else:
        raise ValueError("is not a quantity")
    if not 0 <= amount <= _MOST:
        raise ValueError("is out of range")
    return amount
