"""Scalar types that JSON has as well: None, bool, int, float, str."""

from __future__ import annotations

import math
from typing import Any

from .type import ABSENT, Mismatch, Scalar, Type, Wire

_TRUE, _FALSE = (
    frozenset(("true", "yes", "on", "1", "t", "y")),
    frozenset(("false", "no", "off", "0", "f", "n")),
)
# Approximate bits of the largest integer that Python converts from and to text
# (`sys.get_int_max_str_digits`).
BITS = 14_000


class Exact(Scalar):
    """A type whose JSON values, wire values and objects are all instances of one class."""

    def __init__(self, name: str, cls: type, sample: Wire) -> None:
        super().__init__(name)
        self._class, self._sample = cls, sample

    @property
    def sample(self) -> Wire:
        """Example value."""
        return self._sample

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the value itself. Raises `Mismatch` if it is of another class."""
        if type(value) is not self._class:
            raise Mismatch(self.name, value)
        return value

    def load(self, wire: Wire) -> Any:
        """Return the value itself."""
        return wire

    def dump(self, value: Any) -> Wire:
        """Return the value itself, or the plain value of a numpy scalar. Raises `Mismatch`."""
        return self.check(value if type(value) is self._class else _plain(value))


class Nothing(Exact):
    """`None`; "null" on a command line."""

    def read(self, text: str) -> Wire:
        """Return None for "null". Raises `ValueError`."""
        if text != "null":
            raise ValueError(text)
        return None


class Bool(Exact):
    """`true`, `yes`, `on`, `1`, ... in any case."""

    words = ("true", "false")

    def read(self, text: str) -> Wire:
        """Return true or false. Raises `ValueError`."""
        word = text.strip().lower()
        if word not in _TRUE and word not in _FALSE:
            raise ValueError(text)
        return word in _TRUE


class Int(Exact):
    """Integers; an instance of a subclass becomes a plain int."""

    def read(self, text: str) -> Wire:
        """Return an integer from text, as Python's `int` reads it. Raises `ValueError`."""
        return int(text)

    def dump(self, value: Any) -> Wire:
        """Return a plain integer. Raises `Mismatch`, also if Python could not print it."""
        if not isinstance(value, int):
            value = _plain(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise Mismatch(self.name, value)
        if value.bit_length() > BITS:
            raise Mismatch("int of at most 4,300 digits", value)
        return int(value)


class Float(Exact):
    """Numbers, or names of those that RFC 8259 does not permit: "NaN", "Infinity", "-Infinity"."""

    def read(self, text: str) -> Wire:
        """Return a number or the name of one, from text. Raises `ValueError`."""
        return _named(float(text))

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return a number or the name of one. Raises `Mismatch`."""
        if value in ("NaN", "Infinity", "-Infinity"):
            return value
        return self.dump(value)

    def load(self, wire: Wire) -> Any:
        """Return a float."""
        return float(wire)

    def dump(self, value: Any) -> Wire:
        """Return a number or the name of one. Raises `Mismatch`."""
        if not isinstance(value, int | float):
            value = _plain(value)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Mismatch(self.name, value)
        try:
            return _named(float(value))
        except OverflowError:
            raise Mismatch(self.name, value) from None


class Str(Exact):
    """Strings; an instance of a subclass becomes a plain str."""

    def read(self, text: str) -> Wire:
        """Return the string itself."""
        return text

    def dump(self, value: Any) -> Wire:
        """Return a plain string. Raises `Mismatch`."""
        if not isinstance(value, str):
            raise Mismatch(self.name, value)
        return str(value)


def _plain(value: Any) -> Any:
    """Return the Python value of a numpy scalar, or any other value unchanged."""
    names = [f"{cls.__module__}.{cls.__name__}" for cls in type(value).__mro__]
    return value.item() if "numpy.generic" in names else value


def _named(value: float) -> Wire:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


TYPES: dict[str, Type] = {
    "None": Nothing("None", type(None), None),
    "bool": Bool("bool", bool, True),
    "int": Int("int", int, 3),
    "float": Float("float", float, 0.5),
    "str": Str("str", str, "text"),
}
