"""Types of inputs and outputs, and the one converter for all of them.

A `Type` describes a Python annotation. It knows four forms of a value: the text of a command line, a JSON value (from a
file, a form, another program), the *wire* (a JSON value in the one normal form that is stored and sent), and the Python
object. `parse` and `check` make wire of the first two, and need no class of the user's; `load` and `dump` go between wire
and object, where the annotation is at hand. `document` and `from_document` carry a type to where it is not.

    int, str, bool, null      as JSON            datetime, date   ISO 8601
    float                     as JSON; "NaN", "Infinity", "-Infinity" as text (RFC 8259 has no such numbers)
    timedelta                 ISO 8601, as in "PT90S" or "-P1DT0.5S"
    list, dict, dataclass     arrays and objects; keys of other types than text as their own text
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

Wire = Any  # None, bool, int, float, str, list[Wire], dict[str, Wire]
_ABSENT: Any = object()


class Mismatch(Exception):
    """A value is not of its type: `where` in it (as in `[2].name`, "" for the whole), what was `expected`, what was `given`."""

    def __init__(self, expected: str, given: Any, where: str = "", reasons: str = "") -> None:
        super().__init__(expected, given, where)
        self.expected, self.given, self.where, self.reasons = expected, given, where, reasons

    def below(self, step: str) -> "Mismatch":
        """The same mismatch, seen from one level up."""
        return Mismatch(self.expected, self.given, step + self.where, self.reasons)


class Type:
    """A scalar, by name; the base of all other types."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name

    @property
    def example(self) -> str:
        """A value as one would type it."""
        return _SCALARS[self.name].example

    def document(self) -> Wire:
        """This type as a JSON value."""
        return self.name

    def parse(self, text: str) -> Wire:
        """The wire of a text from a command line. Raises `Mismatch`."""
        try:
            return _SCALARS[self.name].parse(text)
        except (ValueError, OverflowError):
            raise Mismatch(self.name, text) from None

    def check(self, value: Any, default: Wire = _ABSENT) -> Wire:
        """The wire of a JSON value; `default` supplies what a value may leave out. Raises `Mismatch`."""
        scalar = _SCALARS[self.name]
        if type(value) in scalar.json:
            return float(value) if self.name == "float" else value
        if isinstance(value, str) and self.name != "bool" and self.name != "int":
            return self.parse(value)
        raise Mismatch(self.name, value)

    def load(self, wire: Wire) -> Any:
        """The object that a wire value stands for."""
        return _SCALARS[self.name].load(wire)

    def dump(self, value: Any) -> Wire:
        """The wire of an object. Raises `Mismatch`."""
        scalar = _SCALARS[self.name]
        if not isinstance(value, scalar.classes) or (isinstance(value, bool) and self.name in ("int", "float")):
            raise Mismatch(self.name, value)
        if isinstance(value, datetime) and self.name == "date":
            raise Mismatch(self.name, value)
        return scalar.dump(value)


class ListOf(Type):
    """`list[item]`."""

    def __init__(self, item: Type) -> None:
        super().__init__(f"list[{item}]")
        self.item = item

    @property
    def example(self) -> str:
        return f"'[{_in_json(self.item)}, {_in_json(self.item)}]'"

    def document(self) -> Wire:
        return {"list": self.item.document()}

    def parse(self, text: str) -> Wire:
        return self.check(_from_json(text, self.name))

    def check(self, value: Any, default: Wire = _ABSENT) -> Wire:
        if not isinstance(value, list):
            raise Mismatch(self.name, value)
        return [_step(f"[{at}]", self.item.check, item) for at, item in enumerate(value)]

    def load(self, wire: Wire) -> Any:
        return [self.item.load(item) for item in wire]

    def dump(self, value: Any) -> Wire:
        if not isinstance(value, list):
            raise Mismatch(self.name, value)
        return [_step(f"[{at}]", self.item.dump, item) for at, item in enumerate(value)]


class DictOf(Type):
    """`dict[key, value]`; keys are scalars."""

    def __init__(self, key: Type, value: Type) -> None:
        super().__init__(f"dict[{key}, {value}]")
        self.key, self.value = key, value

    @property
    def example(self) -> str:
        key = self.key.example.strip("'")
        return f"'{{{json.dumps(key)}: {_in_json(self.value)}}}'"

    def document(self) -> Wire:
        return {"dict": [self.key.document(), self.value.document()]}

    def parse(self, text: str) -> Wire:
        return self.check(_from_json(text, self.name))

    def check(self, value: Any, default: Wire = _ABSENT) -> Wire:
        if not isinstance(value, dict):
            raise Mismatch(self.name, value)
        return {
            _key_text(_step(f" key {name!r}", self.key.parse, name)): _step(f"[{name!r}]", self.value.check, item)
            for name, item in value.items()
        }

    def load(self, wire: Wire) -> Any:
        return {self.key.load(self.key.parse(name)): self.value.load(item) for name, item in wire.items()}

    def dump(self, value: Any) -> Wire:
        if not isinstance(value, dict):
            raise Mismatch(self.name, value)
        return {
            _key_text(_step(f" key {name!r}", self.key.dump, name)): _step(f"[{name!r}]", self.value.dump, item)
            for name, item in value.items()
        }


class Field:
    """A record's field: `required` unless its class has a default."""

    def __init__(self, name: str, type: Type, required: bool) -> None:
        self.name, self.type, self.required = name, type, required


class Record(Type):
    """A dataclass. `make` builds one from keywords, where the class is at hand."""

    def __init__(self, name: str, fields: list[Field], make: Callable[..., Any] | None = None) -> None:
        super().__init__(name)
        self.fields, self.make = fields, make

    @property
    def example(self) -> str:
        fields = [field for field in self.fields if field.required] or self.fields[:1]
        return "'{" + ", ".join(f'"{field.name}": {_in_json(field.type)}' for field in fields) + "}'"

    def document(self) -> Wire:
        return {"record": self.name, "fields": [[field.name, field.type.document(), field.required] for field in self.fields]}

    def parse(self, text: str) -> Wire:
        return self.check(_from_json(text, self.name))

    def check(self, value: Any, default: Wire = _ABSENT) -> Wire:
        if not isinstance(value, dict):
            raise Mismatch(self.name, value)
        names = [field.name for field in self.fields]
        for name in value:
            if name not in names:
                raise Mismatch(f"{self.name} (its fields are {', '.join(names)})", value, f".{name}")
        defaults = default if isinstance(default, dict) else {}
        wire = {}
        for field in self.fields:
            if field.name in value:
                wire[field.name] = _step(f".{field.name}", field.type.check, value[field.name], defaults.get(field.name, _ABSENT))
            elif field.name in defaults:
                wire[field.name] = defaults[field.name]
            elif field.required:
                raise Mismatch(f"{field.type} (it is missing)", value, f".{field.name}")
        return wire

    def load(self, wire: Wire) -> Any:
        assert self.make is not None, "only where the class is at hand"
        return self.make(**{field.name: field.type.load(wire[field.name]) for field in self.fields if field.name in wire})

    def dump(self, value: Any) -> Wire:
        if self.make is None or not isinstance(value, self.make):  # type: ignore[arg-type]  # `make` is the class.
            raise Mismatch(self.name, value)
        return {field.name: _step(f".{field.name}", field.type.dump, getattr(value, field.name)) for field in self.fields}


class OneOf(Type):
    """A union; `None` among its members makes it optional. The first member that fits takes the value."""

    def __init__(self, members: list[Type]) -> None:
        super().__init__(" | ".join(map(str, members)))
        self.members = members

    @property
    def example(self) -> str:
        return self.members[0].example

    def document(self) -> Wire:
        return {"union": [member.document() for member in self.members]}

    def parse(self, text: str) -> Wire:
        if text == "null" and any(member.name == "None" for member in self.members):
            return None
        return self._first(lambda member: member.parse(text), text, [m for m in self.members if m.name != "None"])

    def check(self, value: Any, default: Wire = _ABSENT) -> Wire:
        return self._first(lambda member: member.check(value, default), value, self.members)

    def load(self, wire: Wire) -> Any:
        for member in self.members:
            try:
                return member.load(member.check(wire))
            except Mismatch:
                continue
        raise Mismatch(self.name, wire)

    def dump(self, value: Any) -> Wire:
        return self._first(lambda member: member.dump(value), value, self.members)

    def _first(self, convert: Callable[[Type], Wire], value: Any, members: list[Type]) -> Wire:
        reasons = []
        for member in members:
            try:
                return convert(member)
            except Mismatch as mismatch:
                reasons.append(mismatch)
        if len(reasons) == 1:
            raise reasons[0]
        raise Mismatch(self.name, value, reasons="; ".join(f"{reason.where or 'it'} is no {reason.expected}" for reason in reasons))


class AnyJson(Type):
    """A value without a declared type: any JSON value; other objects go as text that says what they were."""

    def __init__(self) -> None:
        super().__init__("any")

    @property
    def example(self) -> str:
        return "'[1, \"a\"]'"

    def parse(self, text: str) -> Wire:
        try:
            return json.loads(text)
        except ValueError:
            return text

    def check(self, value: Any, default: Wire = _ABSENT) -> Wire:
        return value

    def load(self, wire: Wire) -> Any:
        return wire

    def dump(self, value: Any) -> Wire:
        try:
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            raise Mismatch("any JSON value", value) from None


class _Scalar:
    def __init__(
        self,
        classes: type | tuple[type, ...],
        json: tuple[type, ...],
        parse: Callable[[str], Wire],
        example: str,
        load: Callable[[Wire], Any] = lambda wire: wire,
        dump: Callable[[Any], Wire] = lambda value: value,
    ) -> None:
        self.classes, self.json, self.parse, self.example, self.load, self.dump = classes, json, parse, example, load, dump


def _parse_float(text: str) -> Wire:
    return _dump_float(float(text))


def _dump_float(value: float) -> Wire:
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _parse_bool(text: str) -> bool:
    from .texts import parse_bool

    return parse_bool(text)


def _parse_datetime(text: str) -> str:
    from .texts import parse_datetime

    return parse_datetime(text).isoformat()


def _parse_date(text: str) -> str:
    from .texts import parse_datetime

    return parse_datetime(text).date().isoformat()


def _parse_timedelta(text: str) -> str:
    from .texts import parse_timedelta

    return dump_timedelta(parse_timedelta(text))


def _load_timedelta(wire: str) -> timedelta:
    from .texts import parse_timedelta

    return parse_timedelta(wire)


def dump_timedelta(value: timedelta) -> str:
    """ISO 8601, exact to the microsecond: days and seconds, with one sign for the whole."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    seconds = f"{value.seconds}.{value.microseconds:06}".rstrip("0").rstrip(".") if value.microseconds else str(value.seconds)
    days = f"{value.days}D" if value.days else ""
    return f"{sign}P{days}T{seconds}S" if seconds != "0" or not days else f"{sign}P{days}"


_SCALARS: dict[str, _Scalar] = {
    "None": _Scalar(type(None), (type(None),), lambda text: _raise(text) if text != "null" else None, "null"),
    "bool": _Scalar(bool, (bool,), _parse_bool, "true"),
    "int": _Scalar(int, (int,), int, "3"),
    "float": _Scalar((float, int), (float, int), _parse_float, "0.5", load=float, dump=_dump_float),
    "str": _Scalar(str, (str,), str, "text"),
    "datetime": _Scalar(datetime, (), _parse_datetime, "2026-01-31T12:00:00Z", load=datetime.fromisoformat, dump=datetime.isoformat),
    "date": _Scalar(date, (), _parse_date, "2026-01-31", load=date.fromisoformat, dump=date.isoformat),
    "timedelta": _Scalar(timedelta, (), _parse_timedelta, "90s", load=_load_timedelta, dump=dump_timedelta),
}


def scalar(annotation: Any) -> Type | None:
    """The scalar type of a class, or None."""
    classes = {
        "None": type(None),
        "bool": bool,
        "int": int,
        "float": float,
        "str": str,
        "datetime": datetime,
        "date": date,
        "timedelta": timedelta,
    }
    return next((Type(name) for name, cls in classes.items() if annotation is cls), None)


def from_document(document: Wire) -> Type:
    """The type that `document` describes; its records have no class at hand."""
    if document == "any":
        return AnyJson()
    if isinstance(document, str):
        return Type(document)
    if "list" in document:
        return ListOf(from_document(document["list"]))
    if "dict" in document:
        return DictOf(*map(from_document, document["dict"]))
    if "union" in document:
        return OneOf([from_document(member) for member in document["union"]])
    return Record(document["record"], [Field(name, from_document(type), required) for name, type, required in document["fields"]])


def _step(where: str, convert: Callable[..., Wire], *values: Any) -> Wire:
    try:
        return convert(*values)
    except Mismatch as mismatch:
        raise mismatch.below(where) from None


def _from_json(text: str, expected: str) -> Any:
    from .texts import read_json

    try:
        return read_json(text)
    except (ValueError, OSError) as error:
        raise Mismatch(f"{expected}, as JSON", text, reasons=str(error)) from None


def _in_json(type: Type) -> str:
    example = type.example
    if example.startswith("'"):
        return example.strip("'")
    return example if type.name in ("int", "float", "bool", "None") else json.dumps(example)


def _key_text(wire: Wire) -> str:
    return wire if isinstance(wire, str) else json.dumps(wire)


def _raise(text: str) -> Any:
    raise ValueError(text)
