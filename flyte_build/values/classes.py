"""Conversion of the user's classes to record types, with functions to read and create objects."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from .annotations import Outer, hints_of, type_of
from .objects import Object
from .records import Field, Maker, RecordType
from .type import Type, scalar


def record_of(annotation: Any, outer: Outer) -> RecordType | None:
    """Return the record type of a dataclass, named tuple, typed dictionary or model, else None.

    The class may be generic, with arguments.
    """
    cls = typing.get_origin(annotation) or annotation
    if not isinstance(cls, type):
        return None
    if dataclasses.is_dataclass(cls):
        fields = [
            (f.name, f.default is f.default_factory is dataclasses.MISSING)
            for f in dataclasses.fields(cls)
            if f.init
        ]
        return _record(
            annotation,
            cls,
            fields,
            outer,
            Maker(_taker(cls, [name for name, _ in fields]), lambda values: cls(**values)),
        )
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        defaults = getattr(cls, "_field_defaults", {})  # An attribute of named tuples.
        fields = [(name, name not in defaults) for name in cls._fields]
        return _record(
            annotation,
            cls,
            fields,
            outer,
            Maker(_taker(cls, cls._fields), lambda values: cls(**values)),
        )
    if typing.is_typeddict(cls):
        fields = [(name, _is_required(cls, name, hint)) for name, hint in hints_of(cls).items()]
        names = frozenset(name for name, _ in fields)
        return _record(
            annotation,
            cls,
            fields,
            outer,
            Maker(lambda value: value if _is_dict(value, names) else None, dict),
        )
    if all(hasattr(cls, name) for name in ("model_fields", "model_validate", "model_dump")):
        return _model(cls, outer)
    return None


def _record(
    annotation: Any, cls: type, fields: Iterable[tuple[str, bool]], outer: Outer, maker: Maker
) -> RecordType:
    record, hints = RecordType(cls.__name__, maker), hints_of(cls)
    bind = partial(
        _bound,
        dict(zip(getattr(cls, "__parameters__", ()), typing.get_args(annotation), strict=False)),
    )
    inside = [(annotation, record), *outer]
    return record.complete(
        [
            Field(name, type_of(bind(hints.get(name, Any)), inside), required)
            for name, required in fields
        ]
    )


def _bound(arguments: dict[Any, Any], hint: Any) -> Any:
    """Substitute the arguments of a generic class for its type variables in a type hint."""
    if isinstance(hint, typing.TypeVar):
        return arguments.get(hint, hint)
    parameters = () if isinstance(hint, type) else getattr(hint, "__parameters__", ())
    return hint[tuple(arguments.get(each, each) for each in parameters)] if parameters else hint


def _taker(cls: type, names: Iterable[str]) -> Callable[[Any], dict[str, Any] | None]:
    return lambda value: (
        {name: getattr(value, name) for name in names} if type(value) is cls else None
    )


def _is_dict(value: Any, names: frozenset[str]) -> bool:
    return isinstance(value, dict) and value.keys() <= names


def _is_required(cls: Any, name: str, hint: Any) -> bool:
    """Whether a key of a typed dictionary is required.

    `__required_keys__` ignores `Required` and `NotRequired` in postponed annotations.
    """
    origin = typing.get_origin(hint)
    return origin is typing.Required or (
        name in cls.__required_keys__ and origin is not typing.NotRequired
    )


def _model(cls: Any, outer: Outer) -> RecordType:
    """Return the record type of a model, which is recognized by its methods (those of pydantic 2).

    The model creates and validates its objects itself. A field of a class that only the model can
    convert has any JSON value, as the model serializes it.
    """
    own: set[str] = set()

    def take(value: Any) -> dict[str, Any] | None:
        if type(value) is not cls:
            return None
        values = {name: getattr(value, name) for name in cls.model_fields}
        return {**values, **value.model_dump(mode="json", include=own)} if own else values

    def make(values: dict[str, Any]) -> Any:
        return cls.model_validate(
            {
                getattr(cls.model_fields[name], "alias", None) or name: value
                for name, value in values.items()
            }
        )

    record, fields = RecordType(cls.__name__, Maker(take, make)), []
    for name, info in cls.model_fields.items():
        known = type_of(info.annotation, [(cls, record), *outer])
        if any(isinstance(each, Object) for each in _all(known)):
            own.add(name)
            known = scalar("any")
        fields.append(Field(name, known, info.is_required()))
    return record.complete(fields)


def _all(type: Type) -> Iterator[Type]:
    yield type
    for inner in type.inner:
        yield from _all(inner)
