"""A task's interface: the names, types, defaults and descriptions of its inputs and outputs."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable
from typing import Any

from .errors import DeclarationError, InputError
from .types import AnyJson, DictOf, Field, ListOf, Mismatch, OneOf, Record, Type, Wire, from_document, scalar

_NO_DEFAULT: Any = object()


class Parameter:
    """An input. `default` is wire, or `_NO_DEFAULT`; one that has no wire form is known only as text, in `default_text`."""

    def __init__(self, name: str, type: Type, default: Wire = _NO_DEFAULT, default_text: str = "", doc: str = "") -> None:
        self.name, self.type, self.default, self.default_text, self.doc = name, type, default, default_text, doc

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return not self.default_text

    def parse(self, text: str) -> Wire:
        """Wire of a command line's text. Raises `InputError`."""
        return self._converted(self.type.parse, text)

    def check(self, value: Any) -> Wire:
        """Wire of a JSON value. Raises `InputError`."""
        default = () if self.default is _NO_DEFAULT else (self.default,)
        return self._converted(lambda given: self.type.check(given, *default), value)

    def dump(self, value: Any) -> Wire:
        """Wire of an object. Raises `InputError`."""
        return self._converted(self.type.dump, value)

    def missing(self) -> InputError:
        """The error to raise when no value was given."""
        return InputError(
            f"The input {self.name!r} is missing",
            why=f"Its type is {self.type}, and it has no default.",
            hint=f"Add, for example: {self.usage}",
        )

    @property
    def usage(self) -> str:
        """How a value is given on the command line."""
        return f"--{self.name} {self.type.example}"

    def _converted(self, convert: Callable[[Any], Wire], value: Any) -> Wire:
        try:
            return convert(value)
        except Mismatch as mismatch:
            where = f"{self.name}{mismatch.where}"
            raise InputError(
                f"The input {where!r} cannot be {_shortened(mismatch.given)}",
                why=f"Expected: {mismatch.expected}." + (f" {mismatch.reasons}" if mismatch.reasons else ""),
                hint=f"For example: {self.usage}",
            ) from None


class Interface:
    """Inputs and outputs in order; outputs are `o0`, `o1`, ..., or a named tuple's fields."""

    def __init__(self, inputs: list[Parameter], outputs: list[tuple[str, Type]], doc: str = "") -> None:
        self.inputs, self.outputs, self.doc = inputs, outputs, doc

    def document(self) -> dict[str, Any]:
        """This interface as a JSON value."""
        inputs = []
        for parameter in self.inputs:
            entry = {
                "name": parameter.name,
                "type": parameter.type.document(),
                "doc": parameter.doc,
                "default_text": parameter.default_text,
            }
            inputs.append(entry if parameter.default is _NO_DEFAULT else {**entry, "default": parameter.default})
        return {"inputs": inputs, "outputs": [[name, type.document()] for name, type in self.outputs], "doc": self.doc}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Interface":
        """The interface that `document` describes."""
        inputs = [
            Parameter(entry["name"], from_document(entry["type"]), entry.get("default", _NO_DEFAULT), entry["default_text"], entry["doc"])
            for entry in document["inputs"]
        ]
        return cls(inputs, [(name, from_document(type)) for name, type in document["outputs"]], document["doc"])

    def dump_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Wire]:
        """Wire of a call's arguments; defaults are left to the function. Raises `InputError`."""
        names = [parameter.name for parameter in self.inputs]
        if len(args) > len(names):
            raise InputError(f"{len(args)} inputs were given", why=f"The task takes {len(names)}: {', '.join(names)}.")
        given = dict(zip(names, args, strict=False))
        for name in kwargs:
            if name not in names or name in given:
                raise InputError(
                    f"The input {name!r} " + ("was given twice" if name in given else "does not exist"),
                    why=f"The task takes {', '.join(names) or 'no inputs'}.",
                )
        return self._complete({**given, **kwargs}, Parameter.dump)

    def check_inputs(self, values: dict[str, Any]) -> dict[str, Wire]:
        """Wire of JSON values by name. Raises `InputError`."""
        return self._complete(values, Parameter.check)

    def _complete(self, given: dict[str, Any], convert: Callable[[Parameter, Any], Wire]) -> dict[str, Wire]:
        for parameter in self.inputs:
            if parameter.required and parameter.name not in given:
                raise parameter.missing()
        return {parameter.name: convert(parameter, given[parameter.name]) for parameter in self.inputs if parameter.name in given}

    def load_inputs(self, wire: dict[str, Wire]) -> dict[str, Any]:
        """The objects that a task's function is called with."""
        return {parameter.name: parameter.type.load(wire[parameter.name]) for parameter in self.inputs if parameter.name in wire}

    def dump_outputs(self, result: Any) -> dict[str, Wire]:
        """Wire of what a task's function returned. Raises `Mismatch`."""
        if len(self.outputs) == 1:
            return {self.outputs[0][0]: self.outputs[0][1].dump(result)}
        values = () if not self.outputs and result is None else result
        if not isinstance(values, tuple) or len(values) != len(self.outputs):
            raise Mismatch(f"a tuple of {len(self.outputs)}" if self.outputs else "None", result)
        return {name: type.dump(value) for (name, type), value in zip(self.outputs, values, strict=True)}

    def load_outputs(self, wire: dict[str, Wire]) -> tuple[Any, ...]:
        """The objects that outputs stand for, in order."""
        return tuple(type.load(wire[name]) for name, type in self.outputs)


def interface_of(function: Callable[..., Any], docs: bool = False) -> Interface:
    """The interface that a function's signature and annotations describe, with its docstring's texts if `docs` are wanted.

    Raises `DeclarationError`.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise DeclarationError(f"The annotations of {function.__qualname__} cannot be evaluated", why=str(error)) from error
    summary, texts = _docstring(function) if docs else ("", {})
    inputs = []
    for name, parameter in inspect.signature(function).parameters.items():
        type = type_of(hints.get(name, Any))
        if parameter.default is parameter.empty:
            inputs.append(Parameter(name, type, doc=texts.get(name, "")))
        else:
            inputs.append(Parameter(name, type, *_default(type, parameter.default), doc=texts.get(name, "")))
    return Interface(inputs, _outputs(hints), summary)


def type_of(annotation: Any) -> Type:
    """The type of an annotation; what has none of ours is any JSON value."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_of(args[0])
    if origin is list or annotation is list:
        return ListOf(type_of(args[0] if args else Any))
    if origin is dict or annotation is dict:
        key, value = args or (str, Any)
        return DictOf(type_of(key), type_of(value))
    if origin is typing.Union or origin is types.UnionType:
        return OneOf([type_of(member) for member in args])
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _record(annotation)
    return scalar(type(None) if annotation is None else annotation) or AnyJson()


def _record(cls: Any) -> Record:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = [
        Field(
            field.name,
            type_of(hints[field.name]),
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(cls)
        if field.init
    ]
    return Record(cls.__name__, fields, cls)


def _default(type: Type, value: Any) -> tuple[Wire, str]:
    try:
        wire = type.dump(value)
        return wire, _as_typed(wire)
    except Mismatch:
        return (None, "null") if value is None else (_NO_DEFAULT, _shortened(value))


def _as_typed(wire: Wire) -> str:
    """Wire as one would type it on a command line."""
    text = wire if isinstance(wire, str) and wire else json.dumps(wire, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _outputs(hints: dict[str, Any]) -> list[tuple[str, Type]]:
    returned = hints.get("return", Any)
    if returned is None or returned is type(None):
        return []
    if isinstance(returned, type) and issubclass(returned, tuple) and hasattr(returned, "_fields"):
        fields = typing.get_type_hints(returned)
        return [(name, type_of(fields.get(name, Any))) for name in returned._fields]
    args = typing.get_args(returned)
    if typing.get_origin(returned) is tuple and args and args[-1] is not Ellipsis:
        return [(f"o{at}", type_of(arg)) for at, arg in enumerate(args)]
    return [("o0", type_of(returned))]


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    text = inspect.getdoc(function)
    if not text:
        return "", {}
    import docstring_parser

    parsed = docstring_parser.parse(text)
    summary = "\n\n".join(part for part in (parsed.short_description, parsed.long_description) if part)
    return summary, {param.arg_name: param.description or "" for param in parsed.params}


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
