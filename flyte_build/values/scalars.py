"""The types that JSON has: None, bool, int, float, str."""

from __future__ import annotations

import math
from typing import Any

from .type import ABSENT, Mismatch, Scalar, Type, Wire

_TRUE, _FALSE = (
    frozenset(("true", "yes", "on", "1", "t", "y")),
    frozenset(("false", "no", "off", "0", "f", "n")),
)
# Bits of the largest number that Python reads and writes as text, about
# (`sys.get_int_max_str_digits`).
BITS = 14_000


class Exact(Scalar):
    """A type whose JSON values, wire and objects are instances of one class."""

    def __init__(self, name: str, cls: type, sample: Wire) -> None:
        super().__init__(name)
        self._class, self._sample = cls, sample

    @property
    def sample(self) -> Wire:
        """A value."""
        return self._sample

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """The value itself. Raises `Mismatch`."""
        if type(value) is not self._class:
            raise Mismatch(self.name, value)
        return value

    def load(self, wire: Wire) -> Any:
        """The value itself."""
        return wire

    def dump(self, value: Any) -> Wire:
        """Return the value itself. Raises `Mismatch`."""
        return self.check(value if type(value) is self._class else _plain(value))


class Nothing(Exact):
    """`None`; "null" on a command line."""

    def read(self, text: str) -> Wire:
        """None."""
        if text != "null":
            raise ValueError(text)
        return None


class Bool(Exact):
    """`true`, `yes`, `on`, `1`, ... in any case."""

    words = ("true", "false")

    def read(self, text: str) -> Wire:
        """True or false."""
        word = text.strip().lower()
        if word not in _TRUE and word not in _FALSE:
            raise ValueError(text)
        return word in _TRUE


class Int(Exact):
    """As Python reads it; an instance of a subclass becomes a plain number."""

    def read(self, text: str) -> Wire:
        """A number."""
        return int(text)

    def dump(self, value: Any) -> Wire:
        """A number."""
        if not isinstance(value, int):
            value = _plain(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise Mismatch(self.name, value)
        if value.bit_length() > BITS:
            raise Mismatch("int of at most 4,300 digits", value)
        return int(value)


class Float(Exact):
    """A number; what JSON lacks as text: "NaN", "Infinity", "-Infinity" (RFC 8259 has no such
    numbers).
    """

    def read(self, text: str) -> Wire:
        """A number, or its name."""
        return _named(float(text))

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """A number, or its name."""
        if value in ("NaN", "Infinity", "-Infinity"):
            return value
        return self.dump(value)

    def load(self, wire: Wire) -> Any:
        """A number."""
        return float(wire)

    def dump(self, value: Any) -> Wire:
        """A number, or its name."""
        if not isinstance(value, int | float):
            value = _plain(value)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Mismatch(self.name, value)
        try:
            return _named(float(value))
        except OverflowError:
            raise Mismatch(self.name, value) from None


class Str(Exact):
    """Text, as it is; an instance of a subclass becomes plain text."""

    def read(self, text: str) -> Wire:
        """The text."""
        return text

    def dump(self, value: Any) -> Wire:
        """The text."""
        if not isinstance(value, str):
            raise Mismatch(self.name, value)
        return str(value)


def _plain(value: Any) -> Any:
    """Return the Python value that equals a scalar of numpy; any other value as it is."""
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
