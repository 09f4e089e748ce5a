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
    """An input of a task.

    `default` is a wire value, or `ABSENT`. A default without a wire form has only a `default_text`.
    An input whose default is None accepts None whatever its type, as in Python: `items: list[int]
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
        """Return the wire value of a command-line option that is given once or more.

        Raises `InputError`.
        """
        return self._converted(lambda: self.type.parse_all(texts, self.default))

    def check(self, value: Any, usage: Callable[[], str] | None = None) -> Wire:
        """Return the wire value of a JSON value.

        Raises `InputError`; `usage` returns the example in its hint (default: an option).
        """
        if self._is_none(value):
            return None
        return self._converted(lambda: self.type.check(value, self.default), usage)

    def dump(self, value: Any) -> Wire:
        """Return the wire value of a Python object. Raises `InputError`."""
        if self._is_none(value):
            return None
        return self._converted(lambda: self.type.dump(value), self.argument)

    def load(self, wire: Wire) -> Any:
        """Return the Python object of a wire value, to call the task's function with.

        Raises `InputError`, also in place of any exception that the user's class raises.
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
                why=f"Expected: {self.type.described}. Creating it raised {said}.",
                hint=f"For example: {self.usage()}",
            ) from error

    def _is_none(self, value: Any) -> bool:
        return value is None and self.default is None

    def missing(self, example: str) -> InputError:
        """Return the error for a missing value; `example` shows how to give one."""
        return InputError(
            f"The input {self.name!r} is missing",
            why=f"Its type is {self.type.described}, and it has no default.",
            hint=f"Add, for example: {example}",
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
    """Inputs and outputs of a task, in order.

    Outputs are named `o0`, `o1`, ..., or after the fields of the named tuple `record`.
    """

    def __init__(
        self,
        inputs: list[Parameter],
        outputs: list[tuple[str, Type]],
        doc: str = "",
        record: Callable[..., Any] | None = None,
    ) -> None:
        self.inputs, self.outputs, self.doc, self._record = inputs, outputs, doc, record

    def document(self) -> dict[str, Any]:
        """Return this interface as a JSON value."""
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
        """Return the interface from a value that `document` returned."""
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
        """Return the wire values of a call's arguments, without those that are left to defaults.

        Raises `InputError`.
        """
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
        return self.complete({**given, **kwargs}, Parameter.dump, Parameter.argument)

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
        """Return the wire values of JSON values, by name. Raises `InputError`."""
        self.refuse_unknown(values)
        return self.complete(values, Parameter.check, Parameter.usage)

    def complete(
        self,
        given: Mapping[str, Any],
        convert: Callable[[Parameter, Any], Wire],
        usage: Callable[[Parameter], str],
    ) -> dict[str, Wire]:
        """Return the wire values of the given inputs, without those that are left to defaults.

        `usage` returns an example of an input. Raises one `InputError` for all inputs that are
        missing, or for which `convert` raises one.
        """
        found: dict[str, Wire] = {}
        errors: list[InputError] = []
        for parameter in self.inputs:
            try:
                if parameter.name in given:
                    found[parameter.name] = convert(parameter, given[parameter.name])
                elif parameter.required:
                    raise parameter.missing(usage(parameter))
            except InputError as error:
                errors.append(error)
        if len(errors) > 1:
            raise InputError(
                f"{len(errors)} inputs are invalid",
                why="\n".join(f"{error.what}. {error.why} {error.hint}" for error in errors),
            )
        if errors:
            raise errors[0]
        return found

    def load_inputs(self, wire: Mapping[str, Wire]) -> dict[str, Any]:
        """Return the Python objects to call the task's function with, by name.

        Raises `InputError`.
        """
        return {
            parameter.name: parameter.load(wire[parameter.name])
            for parameter in self.inputs
            if parameter.name in wire
        }

    def dump_outputs(self, result: Any) -> dict[str, Wire]:
        """Return the wire values of the outputs, given the function's result. Raises `Mismatch`."""
        if len(self.outputs) == 1:
            return {self.outputs[0][0]: self.outputs[0][1].dump(result)}
        values = () if not self.outputs and result is None else result
        if not isinstance(values, tuple) or len(values) != len(self.outputs):
            raise Mismatch(f"a tuple of {len(self.outputs)}" if self.outputs else "None", result)
        return {
            name: type.dump(value) for (name, type), value in zip(self.outputs, values, strict=True)
        }

    def load_outputs(self, wire: dict[str, Wire]) -> tuple[Any, ...]:
        """Return the Python objects of the outputs, in order."""
        return tuple(type.load(wire[name]) for name, type in self.outputs)

    def load_result(self, wire: dict[str, Wire]) -> Any:
        """Return what the function has returned, given the wire values of its outputs."""
        values = self.load_outputs(wire)
        if self._record is not None:
            return self._record(*values)
        return values[0] if len(values) == 1 else values or None


def interface_of(function: Callable[..., Any], docs: bool = False) -> Interface:
    """Return the interface of a function, from its signature and annotations.

    With `docs`, also parse the descriptions in its docstring, and keep only defaults that survive
    conversion to wire and back. Raises `DeclarationError`.
    """
    # Imported late: only processes that import the user's tasks need it.
    from flyte_build.values.annotations import hints_of, type_of

    hints = hints_of(function)
    returned = hints.get("return", Any)
    summary, texts = _docstring(function) if docs else ("", {})
    inputs = []
    try:
        for name, parameter in inspect.signature(function).parameters.items():
            type = type_of(hints.get(name, Any))
            default, default_text = _default(type, parameter.default, proven=docs)
            inputs.append(Parameter(name, type, default, default_text, texts.get(name, "")))
        return Interface(
            inputs,
            [(name, type_of(hint)) for name, hint in _outputs(returned)],
            summary,
            returned if _is_record(returned) else None,
        )
    except RecursionError:
        raise DeclarationError(
            f"The annotations of {function.__qualname__} are infinitely recursive",
            hint="Define a class for the type that contains itself.",
        ) from None


def unannotated(function: Callable[..., Any]) -> list[str]:
    """Return the names of a function's parameters without annotation, and "the result" if so.

    A result that can only be None needs none.
    """
    signature = inspect.signature(function)
    found = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.annotation is inspect.Parameter.empty
    ]
    is_bare = signature.return_annotation is inspect.Signature.empty
    return found + ["the result"] * (is_bare and _returns_something(function))


def _returns_something(function: Callable[..., Any]) -> bool:
    """Whether a function has a `return` of anything but the constant None."""
    import dis

    before = None
    for instruction in dis.get_instructions(inspect.unwrap(function)):
        if instruction.opname == "RETURN_CONST" and instruction.argval is not None:
            return True
        if instruction.opname == "RETURN_VALUE" and not (
            before is not None and before.opname == "LOAD_CONST" and before.argval is None
        ):
            return True
        before = instruction
    return False


def _default(type: Type, value: Any, proven: bool) -> tuple[Wire, str]:
    """Return the wire value and the text of a default.

    If it must be `proven`, the wire value is `ABSENT` unless it converts back to an equal value.
    """
    if value is inspect.Parameter.empty:
        return ABSENT, ""
    if value is None:
        return None, "null"
    try:
        wire = type.check(type.dump(value))  # Refuses values that no user could give: pickles.
        if not proven or _is_equal(type, wire, value):
            return wire, _as_typed(wire)
        raise Mismatch(str(type), value)
    except Mismatch:
        # Memory addresses are meaningless, and differ each time.
        return ABSENT, re.sub(r" at 0x[0-9a-f]+", "", shortened(value))


def _is_equal(type: Type, wire: Wire, value: Any) -> bool:
    try:
        return _is_same(type.load(wire), value)
    except Exception:  # The user's class may raise anything.
        return False


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types at any depth.

    A float in `one` may equal an integer in `other`.
    """
    if isinstance(one, float) and type(other) in (int, float):
        return bool(one == other or other != other)  # The latter is true for NaN.
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
    """Return a wire value as a user would type it on a command line, shortened."""
    text = wire if isinstance(wire, str) and wire else json.dumps(wire, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _is_record(returned: Any) -> bool:
    """Whether an annotation is a class of named tuples."""
    return (
        isinstance(returned, type) and issubclass(returned, tuple) and hasattr(returned, "_fields")
    )


def _outputs(returned: Any) -> list[tuple[str, Any]]:
    """Return the names and annotations of the outputs, given the annotation of the result."""
    if returned is None or returned is type(None):
        return []
    if _is_record(returned):
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
