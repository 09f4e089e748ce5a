"""Classes with named fields: dataclasses, named tuples, typed dictionaries and models.

Their wire values are JSON objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .type import ABSENT, Mismatch, Type, Wire, from_document, step


class Field(NamedTuple):
    """A field of a record; `required` unless its class has a default for it."""

    name: str
    type: Type
    required: bool


class Maker(NamedTuple):
    """Functions that convert objects of a class.

    `take` returns the values of an object's fields, or None for an object of another class. `make`
    creates an object from such values.
    """

    take: Callable[[Any], Mapping[str, Any] | None]
    make: Callable[[dict[str, Any]], Any]


class RecordType(Type):
    """Type of a class with named fields; `maker` is given if the class is available.

    It is created without fields, since these may contain the type itself; see `complete`.
    """

    fields: Sequence[Field] = ()

    def __init__(self, name: str, maker: Maker | None = None) -> None:
        super().__init__(name)
        self._maker = maker

    def complete(self, fields: Sequence[Field]) -> RecordType:
        """Set the fields, and return this type."""
        self.fields, self.inner = fields, [field.type for field in fields]
        texts = (
            f"{field.name}: {field.type}" + ("" if field.required else " (optional)")
            for field in fields
        )
        self.details = f"{{{', '.join(texts)}}}"
        return self

    @property
    def sample(self) -> Wire:
        """Object of the required fields, or of the first field if none is required."""
        fields = [field for field in self.fields if field.required] or self.fields[:1]
        values = {field.name: field.type.sample for field in fields}
        return ABSENT if ABSENT in values.values() else values

    def document(self) -> Wire:
        """Return `["record", name, [[name, type, required], ...]]`."""
        return [
            "record",
            self.name,
            [[field.name, field.type.document(), field.required] for field in self.fields],
        ]

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a JSON object. Raises `Mismatch`.

        Missing fields are taken from `default`, or else left to the defaults of the class.
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
        """Whether a JSON value is an object with all required fields and no unknown ones."""
        return (
            isinstance(value, dict)
            and value.keys() <= {field.name for field in self.fields}
            and all(field.name in value for field in self.fields if field.required)
        )

    def load(self, wire: Wire) -> Any:
        """Return an object of the class. Raises any exception that the class raises."""
        assert self._maker is not None, "the class must be available"
        return self._maker.make(
            {
                field.name: field.type.load(wire[field.name])
                for field in self.fields
                if field.name in wire
            }
        )

    def dump(self, value: Any) -> Wire:
        """Return the wire value of an object of exactly this class. Raises `Mismatch`.

        An object of a subclass is refused, since it would lose the fields that the subclass adds.
        """
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
    """Reference from inside a record to an enclosing record; `steps` is 0 for the innermost one."""

    sample = ABSENT

    def __init__(self, record: Type, steps: int) -> None:
        super().__init__(record.name)
        self._record, self._steps = record, steps

    def document(self) -> Wire:
        """Return `["enclosing", steps]`."""
        return ["enclosing", self._steps]

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a JSON value, as the enclosing record does."""
        return self._record.check(value, default)

    def fits(self, value: Any) -> bool:
        """Whether a JSON value fits the enclosing record."""
        return self._record.fits(value)

    def load(self, wire: Wire) -> Any:
        """Return the object of a wire value, as the enclosing record does."""
        return self._record.load(wire)

    def dump(self, value: Any) -> Wire:
        """Return the wire value of an object, as the enclosing record does."""
        return self._record.dump(value)


def read(document: Wire, outer: Sequence[Type]) -> Type:
    """Return the type that a document describes."""
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
