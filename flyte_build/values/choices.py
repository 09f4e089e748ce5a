"""`Enum` and `Literal`: one of a fixed set of values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .type import ABSENT, Mismatch, Type, Wire, same


class Choice(Type):
    """A type with a fixed set of values.

    Each of `options` is a list of JSON values with the same meaning: the wire value, then other
    accepted ones. The wire value of an Enum's member is its name, that of a Literal the value
    itself. `objects` are the Python objects of the options, if the user's class is available.
    """

    def __init__(
        self, name: str, options: Sequence[Sequence[Wire]], objects: Sequence[Any] | None = None
    ) -> None:
        super().__init__(name)
        self._options, self._objects = options, objects
        self.is_key = all(isinstance(option[0], str) for option in options)
        texts = [_text(option[0]) for option in options]
        self.words = texts
        self.details = f"one of {', '.join(texts)}" if name != " | ".join(texts) else ""

    @property
    def sample(self) -> Wire:
        """Wire value of the first option."""
        return self._options[0][0]

    def document(self) -> Wire:
        """Return `["choice", name, [[wire, other, ...], ...]]`."""
        return ["choice", self.name, [list(option) for option in self._options]]

    def parse(self, text: str, default: Wire = ABSENT) -> Wire:
        """Return the wire value of the option that `text` stands for. Raises `Mismatch`.

        Wire values take precedence over other ways to write an option.
        """
        for at in (slice(1), slice(1, None)):
            for option in self._options:
                if any(_text(way) == text for way in option[at]):
                    return option[0]
        raise Mismatch(self.described, text)

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the wire value of the option that a JSON value stands for. Raises `Mismatch`."""
        for at in (slice(1), slice(1, None)):
            for option in self._options:
                if any(same(way, value) for way in option[at]):
                    return option[0]
        raise Mismatch(self.described, value)

    def load(self, wire: Wire) -> Any:
        """Return the object of an option, or its wire value if there are no objects.

        Raises `Mismatch` for an option that no longer exists.
        """
        for at, option in enumerate(self._options):
            if same(option[0], wire):
                return wire if self._objects is None else self._objects[at]
        raise Mismatch(self.described, wire)

    def dump(self, value: Any) -> Wire:
        """Return the wire value of an object. Raises `Mismatch`."""
        for option, each in zip(self._options, self._objects or (), strict=False):
            if type(each) is type(value) and each == value:
                return option[0]
        raise Mismatch(self.described, value)


def enumeration(cls: Any) -> Choice:
    """Return the choice of an Enum's members.

    A member can be given by its name, an alias, or its value if that is a string or a number.
    """
    names: dict[Any, list[Wire]] = {member: [member.name] for member in cls}
    for name, member in cls.__members__.items():
        if name != member.name:
            names[member].append(name)
    options = [
        [*ways, *([member.value] if isinstance(member.value, str | int | float) else [])]
        for member, ways in names.items()
    ]
    return Choice(cls.__name__, options, list(names))


def literal(values: Sequence[Any]) -> Choice:
    """Return the choice of a Literal's values.

    An Enum's member in it has its name as its wire value, and bytes have their `repr`.
    """
    options = [
        (
            value
            if value is None or type(value) in (bool, int, str)
            else getattr(value, "name", None) or repr(value)
        )
        for value in values
    ]
    return Choice(" | ".join(map(_text, options)), [[option] for option in options], values)


def _text(wire: Wire) -> str:
    return wire if isinstance(wire, str) else json.dumps(wire)


def read(document: Wire, outer: Sequence[Type]) -> Type:
    """Return the type that a document describes."""
    return Choice(document[1], document[2])
