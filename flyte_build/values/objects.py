"""Values of any other class: `module:attribute` on a command line, pickled between tasks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from .pickles import KEY, is_pickle, pickled, unpickled
from .scalars import BITS
from .type import ABSENT, Mismatch, Scalar, Type, Wire

_NAMED = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*\Z")


class Anything(Scalar):
    """Type of values without a declared type: a JSON value, or a pickle of any other object."""

    is_key = False

    @property
    def sample(self) -> Wire:
        """Arbitrary JSON value."""
        return [1, "a"]

    def read(self, text: str) -> Wire:
        """Return the value of JSON text, or any other text itself. Raises `Mismatch`."""
        try:
            value = json.loads(text, parse_constant=str)
        except (ValueError, RecursionError):
            return text
        return self.check(value)

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the value itself. Raises `Mismatch` for a pickle: users must not provide one."""
        if is_pickle(value):
            raise Mismatch(f"a value without {KEY!r}", value)
        return value

    def load(self, wire: Wire) -> Any:
        """Return the JSON value, or the unpickled object."""
        return unpickled(wire, self.name) if is_pickle(wire) else wire

    def dump(self, value: Any) -> Wire:
        """Return the value itself if it is a JSON value, else its pickle. Raises `Mismatch`."""
        return value if _is_json(value) and not is_pickle(value) else pickled(value, self.name)


class Object(Type):
    """Type of the instances of an arbitrary class; `cls` is that class, if it is available."""

    def __init__(self, name: str, cls: Any = None) -> None:
        super().__init__(name.rpartition(".")[2])
        self._full, self._class = name, cls
        self.details = "as MODULE:NAME"

    @property
    def sample(self) -> Wire:
        """Name of an object."""
        return "my_module:name"

    def document(self) -> Wire:
        """Return `["object", name]`."""
        return ["object", self._full]

    def parse(self, text: str, default: Wire = ABSENT) -> Wire:
        """Return the string itself if it names an object. Raises `Mismatch`."""
        return self.check(text)

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the string itself if it names an object. Raises `Mismatch`, also for a pickle."""
        if not isinstance(value, str) or not _NAMED.match(value):
            raise Mismatch(self.described, value)
        return value

    def fits(self, value: Any) -> bool:
        """Whether a JSON value is the name of an object, or a pickle."""
        return is_pickle(value) or super().fits(value)

    def load(self, wire: Wire) -> Any:
        """Return the named or pickled object.

        Raises `Mismatch` for an object of another class, and any exception that the import of its
        module or unpickling raises.
        """
        value = unpickled(wire, self.name) if is_pickle(wire) else _named(wire)
        if not self._takes(value):
            raise Mismatch(self.name, value)
        return value

    def dump(self, value: Any) -> Wire:
        """Return the pickle of an object. Raises `Mismatch`."""
        if not self._takes(value):
            raise Mismatch(self.name, value)
        return pickled(value, self.name)

    def _takes(self, value: Any) -> bool:
        try:
            return isinstance(value, self._class)
        except TypeError:  # Not a class, or a protocol without runtime checks.
            return True


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(
            type(key) is str and _is_json(item) for key, item in value.items()
        )
    if isinstance(value, list):
        return type(value) is list and all(map(_is_json, value))
    if type(value) is int:
        return value.bit_length() <= BITS
    return (
        value is None
        or type(value) in (bool, str)
        or (type(value) is float and math.isfinite(value))
    )


def _named(text: str) -> Any:
    from importlib import import_module

    module, _, path = text.partition(":")
    value: Any = import_module(module)
    for name in path.split("."):
        value = getattr(value, name)
    return value


TYPES: dict[str, Type] = {"any": Anything("any")}


def read(document: Wire, outer: Sequence[Type]) -> Type:
    """Return the type that a document describes."""
    return Object(document[1])
