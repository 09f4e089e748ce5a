"""Classes with named fields: dataclasses, named tuples, typed dictionaries and models; on the wire
objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .type import ABSENT, Mismatch, Type, Wire, from_document, step


class Field(NamedTuple):
    """A record's field; `required` unless its class has a default."""

    name: str
    type: Type
    required: bool


class Maker(NamedTuple):
    """How objects of a class are taken apart and made. `take` gives the fields' values, or None for
    an object of another class.
    """

    take: Callable[[Any], Mapping[str, Any] | None]
    make: Callable[[dict[str, Any]], Any]


class RecordType(Type):
    """A class by its fields; `maker` is there where the class is. It is made without fields, since
    it can hold itself.
    """

    fields: Sequence[Field] = ()

    def __init__(self, name: str, maker: Maker | None = None) -> None:
        super().__init__(name)
        self._maker = maker

    def complete(self, fields: Sequence[Field]) -> RecordType:
        """This record, with its fields."""
        self.fields, self.inner = fields, [field.type for field in fields]
        texts = (
            f"{field.name}: {field.type}" + ("" if field.required else " (optional)")
            for field in fields
        )
        self.details = f"{{{', '.join(texts)}}}"
        return self

    @property
    def sample(self) -> Wire:
        """The required fields, or the first one."""
        fields = [field for field in self.fields if field.required] or self.fields[:1]
        values = {field.name: field.type.sample for field in fields}
        return ABSENT if ABSENT in values.values() else values

    def document(self) -> Wire:
        """`["record", name, [[name, type, required], ...]]`."""
        return [
            "record",
            self.name,
            [[field.name, field.type.document(), field.required] for field in self.fields],
        ]

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """The wire of a JSON object; fields that are left out come from the default, and otherwise
        from the class when it is made.
        """
        if not isinstance(value, dict):
            raise Mismatch(self.described, value)
        names = [field.name for field in self.fields]
        for name in value:
            if name not in names:
                raise Mismatch(
                    f"a field of {self.name}",
                    value[name],
                    f".{name}",
                    f"Its fields are {', '.join(names)}.",
                )
        defaults = default if isinstance(default, dict) else {}
        wire = {}
        for name, type, required in self.fields:
            if name in value:
                wire[name] = step(f".{name}", type.check, value[name], defaults.get(name, ABSENT))
            elif name in defaults:
                wire[name] = defaults[name]
            elif required:
                raise Mismatch(type.described, ABSENT, f".{name}")
        return wire

    def fits(self, value: Any) -> bool:
        """Whether it is an object with these fields."""
        return (
            isinstance(value, dict)
            and value.keys() <= {field.name for field in self.fields}
            and all(field.name in value for field in self.fields if field.required)
        )

    def load(self, wire: Wire) -> Any:
        """An object of the class; raises what the class raises."""
        assert self._maker is not None, "only where the class is at hand"
        return self._maker.make(
            {
                field.name: field.type.load(wire[field.name])
                for field in self.fields
                if field.name in wire
            }
        )

    def dump(self, value: Any) -> Wire:
        """The wire of an object of just this class: a subclass would lose what it adds."""
        values = self._maker.take(value) if self._maker else None
        if values is None:
            raise Mismatch(self.name, value)
        for name, _, required in self.fields:
            if required and name not in values:
                raise Mismatch(self.described, value)
        return {
            name: step(f".{name}", type.dump, values[name])
            for name, type, _ in self.fields
            if name in values
        }


class Enclosing(Type):
    """A record again, inside of itself; `steps` records are between (0: the innermost one around
    it).
    """

    sample = ABSENT

    def __init__(self, record: Type, steps: int) -> None:
        super().__init__(record.name)
        self._record, self._steps = record, steps

    def document(self) -> Wire:
        """`["enclosing", steps]`."""
        return ["enclosing", self._steps]

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """As the record does."""
        return self._record.check(value, default)

    def fits(self, value: Any) -> bool:
        """As the record does."""
        return self._record.fits(value)

    def load(self, wire: Wire) -> Any:
        """As the record does."""
        return self._record.load(wire)

    def dump(self, value: Any) -> Wire:
        """As the record does."""
        return self._record.dump(value)


def read(document: Wire, outer: Sequence[Type]) -> Type:
    """The type that a document describes."""
    kind, about, *rest = document
    if kind == "enclosing":
        return Enclosing(outer[about], about)
    record = RecordType(about)
    return record.complete(
        [
            Field(name, from_document(type, (record, *outer)), required)
            for name, type, required in rest[0]
        ]
    )
