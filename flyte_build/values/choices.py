"""`Enum` and `Literal`: one of some values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .type import ABSENT, Mismatch, Type, Wire, same


class Choice(Type):
    """Each of `options` is a list of JSON values that mean the same: the wire first, then other
    ways to write it.

    An Enum's wire is the member's name, a Literal's the value. `objects` are what the options stand
    for, where they are at hand.
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
        """The first option."""
        return self._options[0][0]

    def document(self) -> Wire:
        """`["choice", name, [[wire, other, ...], ...]]`."""
        return ["choice", self.name, [list(option) for option in self._options]]

    def parse(self, text: str, default: Wire = ABSENT) -> Wire:
        """The wire of the option that is written like this; wires come before other ways to write
        an option.
        """
        for at in (slice(1), slice(1, None)):
            for option in self._options:
                if any(_text(way) == text for way in option[at]):
                    return option[0]
        raise Mismatch(self.described, text)

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """The wire of the option that this JSON value means."""
        for at in (slice(1), slice(1, None)):
            for option in self._options:
                if any(same(way, value) for way in option[at]):
                    return option[0]
        raise Mismatch(self.described, value)

    def load(self, wire: Wire) -> Any:
        """The object of an option, or its wire where there are no objects. Raises `Mismatch` for
        one that is not there any more.
        """
        for at, option in enumerate(self._options):
            if same(option[0], wire):
                return wire if self._objects is None else self._objects[at]
        raise Mismatch(self.described, wire)

    def dump(self, value: Any) -> Wire:
        """The wire of an object."""
        for option, each in zip(self._options, self._objects or (), strict=False):
            if type(each) is type(value) and each == value:
                return option[0]
        raise Mismatch(self.described, value)


def enumeration(cls: Any) -> Choice:
    """The choice of an Enum's members: by name, by another name, or by value if that is JSON's."""
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
    """The choice of a Literal's values; an Enum's members in it are written by name,
    bytes as text.
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
    """The type that a document describes."""
    return Choice(document[1], document[2])
