"""Conversion of Python annotations to types, in processes that have the user's classes."""

from __future__ import annotations

import collections.abc
import enum
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any

from flyte_build.errors import DeclarationError

from .type import ABSENT, Type, scalar

# Annotations of the records that enclose a field, and their types, innermost first.
Outer = Sequence[tuple[Any, Type]]

# Scalars by the module and name of their class. If the module is not loaded, no annotation can
# refer to that class.
_SCALARS = {
    ("builtins", "bool"): "bool",
    ("builtins", "int"): "int",
    ("builtins", "float"): "float",
    ("builtins", "str"): "str",
    ("builtins", "bytes"): "bytes",
    ("datetime", "datetime"): "datetime",
    ("datetime", "date"): "date",
    ("datetime", "timedelta"): "timedelta",
    ("decimal", "Decimal"): "Decimal",
    ("pathlib", "Path"): "Path",
    ("pathlib", "PurePath"): "Path",
    ("uuid", "UUID"): "UUID",
}
_ABC = collections.abc
_ARRAYS: dict[Any, tuple[str, tuple[type, ...]]] = {
    list: ("list", ()),
    set: ("set", ()),
    frozenset: ("frozenset", ()),
    **dict.fromkeys((_ABC.Sequence, _ABC.Collection, _ABC.Iterable), ("list", (tuple,))),
    _ABC.MutableSequence: ("list", ()),
    _ABC.MutableSet: ("set", ()),
    _ABC.Set: ("set", (frozenset,)),
}
_MAPPINGS = frozenset((dict, _ABC.Mapping, _ABC.MutableMapping))


def type_of(annotation: Any, outer: Outer = ()) -> Type:
    """Return the type of a resolved annotation; see `hints_of`. Raises `DeclarationError`."""
    for at, (around, record) in enumerate(outer):
        if annotation == around:
            from .records import Enclosing

            return Enclosing(record, at)
    return (
        _known(annotation)
        or _wrapped(annotation, outer)
        or _container(annotation, outer)
        or _class(annotation, outer)
    )


def hints_of(thing: Any) -> dict[str, Any]:
    """Return the annotations of a function or class, with all names in them resolved.

    Raises `DeclarationError`.
    """
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except Exception as error:  # Evaluation runs the user's code.
        raise DeclarationError(
            f"Cannot evaluate the annotations of {thing.__qualname__}", why=str(error)
        ) from error


def _known(annotation: Any) -> Type | None:
    """Return the scalar type of an annotation, or None if it is not a scalar."""
    if annotation is None or annotation is type(None):
        return scalar("None")
    if annotation is Any or annotation is object or isinstance(annotation, typing.TypeVar):
        return scalar("any")
    for (module, name), known in _SCALARS.items():
        if annotation is getattr(sys.modules.get(module), name, ABSENT):
            return scalar(known)
    return None


def _wrapped(annotation: Any, outer: Outer) -> Type | None:
    """Return the type of an annotation that wraps or combines others, or None for other kinds.

    These are unions, `Literal`, qualifiers such as `Annotated`, `NewType` and type aliases.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Union or origin is types.UnionType:
        from .unions import Union

        return Union([type_of(member, outer) for member in args])
    if origin is typing.Literal:
        from .choices import literal

        return literal(args)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final):
        return type_of(args[0], outer)
    if isinstance(annotation, typing.NewType):
        return type_of(annotation.__supertype__, outer)
    if hasattr(annotation, "__value__"):  # `type X = ...` (PEP 695).
        return type_of(annotation.__value__, outer)
    return None


def _container(annotation: Any, outer: Outer) -> Type | None:
    origin, args = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    try:
        kind, others = _ARRAYS.get(origin, ("", ()))
        is_mapping = origin in _MAPPINGS
    except TypeError:  # An unhashable annotation is not a container.
        return None
    if not kind and not is_mapping and origin is not tuple:
        return None
    from .containers import Array, Items, Mapping

    if is_mapping:
        key, value = args or (str, Any)
        return Mapping(
            type_of(key, outer),
            type_of(value, outer),
            () if origin is dict else (types.MappingProxyType,),
        )
    if kind:
        return Array(kind, type_of(args[0] if args else Any, outer), others)
    if len(args) == 2 and args[1] is Ellipsis:
        return Array("tuple", type_of(args[0], outer))
    if hasattr(annotation, "__args__"):  # Also true of `tuple[()]`.
        return Items([type_of(item, outer) for item in args])
    return Array("tuple", scalar("any"))


def _class(annotation: Any, outer: Outer) -> Type:
    cls = typing.get_origin(annotation) or annotation
    if isinstance(cls, enum.EnumMeta):
        from .choices import enumeration

        return enumeration(cls)
    from .classes import record_of

    record = record_of(annotation, outer)
    if record is not None:
        return record
    from .objects import Object

    return Object(
        f"{getattr(cls, '__module__', '')}.{getattr(cls, '__qualname__', annotation)}", cls
    )
