"""A task's interface: the names, types, defaults and descriptions of its inputs and outputs."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flyte_build.errors import DeclarationError, InputError
from flyte_build.values.type import ABSENT, Mismatch, Type, Wire, from_document, shortened


class Parameter:
    """An input. `default` is wire, or `ABSENT`; one that has no wire form is known only as text, in
    `default_text`.

    Whatever the type, None is a value where it is the default, as Python has it: `items: list[int]
    = None`.
    """

    def __init__(
        self, name: str, type: Type, default: Wire = ABSENT, default_text: str = "", doc: str = ""
    ) -> None:
        self.name, self.type, self.default, self.default_text, self.doc = (
            name,
            type,
            default,
            default_text,
            doc,
        )

    def __repr__(self) -> str:
        default = f" = {self.default_text}" if self.default_text else ""
        return f"<input {self.name}: {self.type}{default}>"

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return not self.default_text

    def parse(self, texts: Sequence[str]) -> Wire:
        """Wire of a command line's option, given once or more. Raises `InputError`."""
        return self._converted(lambda: self.type.parse_all(texts, self.default))

    def check(self, value: Any, usage: Callable[[], str] | None = None) -> Wire:
        """Return the wire of a JSON value. Raises `InputError`, whose example `usage` makes."""
        if self._is_none(value):
            return None
        return self._converted(lambda: self.type.check(value, self.default), usage)

    def dump(self, value: Any) -> Wire:
        """Wire of an object. Raises `InputError`."""
        if self._is_none(value):
            return None
        return self._converted(lambda: self.type.dump(value), self.argument)

    def load(self, wire: Wire) -> Any:
        """The object that the function is called with. Raises `InputError`, also from whatever the
        user's class raises.
        """
        if self._is_none(wire):
            return None
        try:
            return self._converted(lambda: self.type.load(wire))
        except InputError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}".rstrip(".: ")
            raise InputError(
                f"The input {self.name!r} cannot be {shortened(wire)}",
                why=f"Expected: {self.type.described}. Making it raised {said}.",
                hint=f"For example: {self.usage()}",
            ) from error

    def _is_none(self, value: Any) -> bool:
        return value is None and self.default is None

    def missing(self, usage: Callable[[], str] | None = None) -> InputError:
        """Return the error for a missing value; `usage` makes its example (default: an option)."""
        return InputError(
            f"The input {self.name!r} is missing",
            why=f"Its type is {self.type.described}, and it has no default.",
            hint=f"Add, for example: {(usage or self.usage)()}",
        )

    def usage(self) -> str:
        """Return an example of this input as an option on the command line."""
        return f"--{self.name} {self.type.example}"

    def argument(self) -> str:
        """Return an example of this input as an argument in Python."""
        try:
            return f"{self.name}={self.type.load(self.type.sample)!r}"
        except Exception:  # The user's class may refuse the example, or may not be importable here.
            return f"{self.name}=..."

    def _converted(self, convert: Callable[[], Any], usage: Callable[[], str] | None = None) -> Any:
        try:
            return convert()
        except Mismatch as mismatch:
            verdict = (
                "is missing"
                if mismatch.given is ABSENT
                else f"cannot be {shortened(mismatch.given)}"
            )
            raise InputError(
                f"The input {self.name + mismatch.where!r} {verdict}",
                why=f"Expected: {mismatch.expected}."
                + (f" {mismatch.reasons}" if mismatch.reasons else ""),
                hint=f"For example: {(usage or self.usage)()}",
            ) from None
        except RecursionError:
            raise InputError(
                f"The input {self.name!r} is nested too deeply", why=f"Its type is {self.type}."
            ) from None


class Interface:
    """Inputs and outputs in order; outputs are `o0`, `o1`, ..., or a named tuple's fields."""

    def __init__(
        self, inputs: list[Parameter], outputs: list[tuple[str, Type]], doc: str = ""
    ) -> None:
        self.inputs, self.outputs, self.doc = inputs, outputs, doc

    def document(self) -> dict[str, Any]:
        """This interface as a JSON value."""
        inputs = []
        for parameter in self.inputs:
            entry = {
                "name": parameter.name,
                "type": str(parameter.type),
                "schema": parameter.type.document(),
                "doc": parameter.doc,
                "default_text": parameter.default_text,
            }
            inputs.append(
                entry if parameter.default is ABSENT else {**entry, "default": parameter.default}
            )
        return {
            "inputs": inputs,
            "outputs": [[name, type.document()] for name, type in self.outputs],
            "doc": self.doc,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Interface:
        """The interface that `document` describes."""
        inputs = [
            Parameter(
                entry["name"],
                from_document(entry["schema"]),
                entry.get("default", ABSENT),
                entry["default_text"],
                entry["doc"],
            )
            for entry in document["inputs"]
        ]
        return cls(
            inputs,
            [(name, from_document(type)) for name, type in document["outputs"]],
            document["doc"],
        )

    def dump_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Wire]:
        """Wire of a call's arguments; defaults are left to the function. Raises `InputError`."""
        names = [parameter.name for parameter in self.inputs]
        if len(args) > len(names):
            raise InputError(
                f"{len(args)} inputs were given",
                why=f"The task takes {len(names)}: {', '.join(names)}.",
            )
        given = dict(zip(names, args, strict=False))
        self.refuse_unknown(kwargs)
        if twice := given.keys() & kwargs.keys():
            raise InputError(
                f"The input {min(twice)!r} was given twice",
                why=f"The task takes {', '.join(names)}.",
            )
        return self._complete({**given, **kwargs}, Parameter.dump, Parameter.argument)

    def refuse_unknown(self, given: Iterable[str]) -> None:
        """Raise `InputError` for a name that no input has."""
        names = [parameter.name for parameter in self.inputs]
        for name in given:
            if name not in names:
                from flyte_build.text.wording import nearest

                near = nearest(name, names)
                raise InputError(
                    f"The input {name!r} does not exist",
                    why=f"The task takes {', '.join(names) or 'no inputs'}.",
                    hint=f"Did you mean {near!r}?" if near else "",
                )

    def check_inputs(self, values: dict[str, Any]) -> dict[str, Wire]:
        """Wire of JSON values by name. Raises `InputError`."""
        self.refuse_unknown(values)
        return self._complete(values, Parameter.check, Parameter.usage)

    def _complete(
        self,
        given: Mapping[str, Any],
        convert: Callable[[Parameter, Any], Wire],
        usage: Callable[[Parameter], str],
    ) -> dict[str, Wire]:
        def wire(parameter: Parameter) -> Wire:
            if parameter.name in given:
                return convert(parameter, given[parameter.name])
            if parameter.required:
                raise parameter.missing(lambda: usage(parameter))
            return ABSENT

        return self.convert(wire)

    def convert(self, wire: Callable[[Parameter], Wire]) -> dict[str, Wire]:
        """Return the wire of each input by name, without those for which it is `ABSENT`.

        Raises one `InputError` for all inputs for which `wire` raises one.
        """
        found: dict[str, Wire] = {}
        errors: list[InputError] = []
        for parameter in self.inputs:
            try:
                found[parameter.name] = wire(parameter)
            except InputError as error:
                errors.append(error)
        if len(errors) > 1:
            raise InputError(
                f"{len(errors)} inputs cannot be used",
                why="\n".join(f"{error.what}. {error.why} {error.hint}" for error in errors),
            )
        if errors:
            raise errors[0]
        return {name: value for name, value in found.items() if value is not ABSENT}

    def load_inputs(self, wire: Mapping[str, Wire]) -> dict[str, Any]:
        """The objects that a task's function is called with. Raises `InputError`."""
        return {
            parameter.name: parameter.load(wire[parameter.name])
            for parameter in self.inputs
            if parameter.name in wire
        }

    def dump_outputs(self, result: Any) -> dict[str, Wire]:
        """Wire of what a task's function returned. Raises `Mismatch`."""
        if len(self.outputs) == 1:
            return {self.outputs[0][0]: self.outputs[0][1].dump(result)}
        values = () if not self.outputs and result is None else result
        if not isinstance(values, tuple) or len(values) != len(self.outputs):
            raise Mismatch(f"a tuple of {len(self.outputs)}" if self.outputs else "None", result)
        return {
            name: type.dump(value) for (name, type), value in zip(self.outputs, values, strict=True)
        }

    def load_outputs(self, wire: dict[str, Wire]) -> tuple[Any, ...]:
        """The objects that outputs stand for, in order."""
        return tuple(type.load(wire[name]) for name, type in self.outputs)


def interface_of(function: Callable[..., Any], docs: bool = False) -> Interface:
    """The interface that a function's signature and annotations describe, with its docstring's
    texts if `docs` are wanted.

    Raises `DeclarationError`.
    """
    from flyte_build.values.annotations import hints_of, type_of  # Only where tasks are at hand.

    hints = hints_of(function)
    summary, texts = _docstring(function) if docs else ("", {})
    inputs = []
    try:
        for name, parameter in inspect.signature(function).parameters.items():
            type = type_of(hints.get(name, Any))
            default, default_text = _default(type, parameter.default, proven=docs)
            inputs.append(Parameter(name, type, default, default_text, texts.get(name, "")))
        return Interface(
            inputs,
            [(name, type_of(hint)) for name, hint in _outputs(hints.get("return", Any))],
            summary,
        )
    except RecursionError:
        raise DeclarationError(
            f"The annotations of {function.__qualname__} have no end",
            hint="Give the type that holds itself a class.",
        ) from None


def unannotated(function: Callable[..., Any]) -> list[str]:
    """What of a function has no annotation: its parameters by name, and "the result"."""
    signature = inspect.signature(function)
    found = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.annotation is inspect.Parameter.empty
    ]
    return found + ["the result"] * (signature.return_annotation is inspect.Signature.empty)


def _default(type: Type, value: Any, proven: bool) -> tuple[Wire, str]:
    """A default as wire and as text. If it is to be `proven`, it has wire only where that makes an
    equal value again.
    """
    if value is inspect.Parameter.empty:
        return ABSENT, ""
    if value is None:
        return None, "null"
    try:
        wire = type.check(type.dump(value))  # Nothing that could not be given as well: no pickles.
        if not proven or _is_equal(type, wire, value):
            return wire, _as_typed(wire)
        raise Mismatch(str(type), value)
    except Mismatch:
        # An address says nothing, and is another one each time.
        return ABSENT, re.sub(r" at 0x[0-9a-f]+", "", shortened(value))


def _is_equal(type: Type, wire: Wire, value: Any) -> bool:
    try:
        return _is_same(type.load(wire), value)
    except Exception:  # Whatever the user's class raises.
        return False


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types, at any depth; a float may stand for an
    integer.
    """
    if isinstance(one, float) and type(other) in (int, float):
        return bool(one == other or other != other)  # The last is true of NaN.
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(_is_same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return all(
            _is_same(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__
        )
    return bool(one == other) and (isinstance(one, set | frozenset) or repr(one) == repr(other))


def _as_typed(wire: Wire) -> str:
    """Wire as one would type it on a command line."""
    text = wire if isinstance(wire, str) and wire else json.dumps(wire, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _outputs(returned: Any) -> list[tuple[str, Any]]:
    """The names of outputs, and their annotations."""
    if returned is None or returned is type(None):
        return []
    if isinstance(returned, type) and issubclass(returned, tuple) and hasattr(returned, "_fields"):
        from flyte_build.values.annotations import hints_of

        hints = hints_of(returned)
        return [(name, hints.get(name, Any)) for name in returned._fields]
    args = typing.get_args(returned)
    if typing.get_origin(returned) is tuple and args and args[-1] is not Ellipsis:
        return [(f"o{at}", arg) for at, arg in enumerate(args)]
    return [("o0", returned)]


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    text = inspect.getdoc(function)
    if not text:
        return "", {}
    import docstring_parser

    parsed = docstring_parser.parse(text)
    summary = "\n\n".join(
        part for part in (parsed.short_description, parsed.long_description) if part
    )
    return summary, {param.arg_name: param.description or "" for param in parsed.params}
