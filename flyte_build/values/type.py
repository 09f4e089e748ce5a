"""Types of inputs and outputs, which convert values between their forms.

A `Type` describes a Python annotation. Values have four forms: a string on a command line, a JSON
value (from a file, a form or another program), a *wire value* (a JSON value in normal form, which
is stored and sent), and a Python object. `parse` and `check` convert the first two to wire values,
and do not need the user's classes. `load` and `dump` convert between wire values and objects, and
need a type made from an annotation (`annotations.type_of`). `document` and `from_document`
transfer a type to processes without the user's classes.

Only `parse` reads files. No two different values of a type have the same wire value, and `check`
returns wire values unchanged.

Each kind of type has a module of its own, which is imported on use: most tasks need very few.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Wire = Any  # None, bool, int, float, str, list[Wire], dict[str, Wire]
Wires = Mapping[str, Wire]  # Inputs or outputs, by name.
ABSENT: Any = object()  # Stands for a missing wire value.

# The module of each kind, by its name in a document: a scalar's document is its name, that of
# other types [kind, ...].
_SCALARS = {
    **dict.fromkeys(("None", "bool", "int", "float", "str"), "scalars"),
    **dict.fromkeys(("datetime", "date", "timedelta"), "times"),
    **dict.fromkeys(("Path", "UUID", "Decimal", "bytes"), "strings"),
    "any": "objects",
}
_KINDS = {
    **dict.fromkeys(("list", "set", "frozenset", "tuple", "items", "dict"), "containers"),
    **dict.fromkeys(("record", "enclosing"), "records"),
    "choice": "choices",
    "union": "unions",
    "object": "objects",
}


class Mismatch(Exception):
    """Raised if a value does not match its type.

    `where` is the place in the value (such as `[2].name`; "" for the whole), `expected` describes
    the values allowed there, and `given` is the value found (`ABSENT` if it is missing). `reasons`
    are sentences with more details.
    """

    def __init__(self, expected: str, given: Any, where: str = "", reasons: str = "") -> None:
        super().__init__(expected, given, where)
        self.expected, self.given, self.where, self.reasons = expected, given, where, reasons

    def below(self, step: str) -> Mismatch:
        """Return this mismatch with `where` prefixed by `step`: as seen from one level up."""
        return Mismatch(self.expected, self.given, step + self.where, self.reasons)


class Type(ABC):
    """The type of an input or output.

    `details` describe it beyond its `name`, and `inner` are the types it consists of. Values of an
    `is_key` type can be keys of JSON objects: their wire values are strings, or JSON scalars whose
    text `parse` accepts. Strings of an `is_file` type name files. `words` are completions that a
    shell may offer, if a type has few values.
    """

    details = ""
    inner: Sequence[Type] = ()
    is_key = False
    is_file = False
    words: Sequence[str] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name

    @property
    def described(self) -> str:
        """Human-readable description of the type."""
        return f"{self.name}, {self.details}" if self.details else self.name

    @property
    @abstractmethod
    def sample(self) -> Wire:
        """Wire value to use in examples; `ABSENT` if it would be infinite."""

    @property
    def example(self) -> str:
        """Example of a value as typed in a shell."""
        import shlex

        sample = self.sample
        return shlex.quote(
            sample if isinstance(sample, str) else json.dumps(sample, ensure_ascii=False)
        )

    @abstractmethod
    def document(self) -> Wire:
        """Return this type as a JSON value."""

    def parse(self, text: str, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a command-line argument: JSON, `@FILE`, or the path of a file.

        Raises `Mismatch`.
        """
        from .documents import read_text

        try:
            value = read_text(text)
        except OSError as error:
            raise Mismatch(
                self.described, text, reasons=f"{error.filename}: {error.strerror}."
            ) from None
        except (ValueError, RecursionError) as error:
            raise Mismatch(
                f"{self.described}, as JSON", text, reasons=f"{str(error).rstrip('.')}."
            ) from None
        return self.check(value, default)

    def parse_all(self, texts: Sequence[str], default: Wire = ABSENT) -> Wire:
        """Return the wire value of an option that is given once or more. Raises `Mismatch`."""
        if len(texts) > 1:
            raise Mismatch(
                f"one {self.name}", " ".join(texts), reasons=f"It was given {len(texts)} times."
            )
        return self.parse(texts[0], default)

    @abstractmethod
    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a JSON value, with missing parts from `default` where allowed.

        Raises `Mismatch`.
        """

    def fits(self, value: Any) -> bool:
        """Whether a JSON value has the outer form of this type; true of all that `check` accepts.

        Nested values are not necessarily looked at.
        """
        try:
            self.check(value)
        except Mismatch:
            return False
        return True

    @abstractmethod
    def load(self, wire: Wire) -> Any:
        """Return the Python object of a wire value."""

    @abstractmethod
    def dump(self, value: Any) -> Wire:
        """Return the wire value of a Python object. Raises `Mismatch`."""

    def takes(self, name: str) -> bool:
        """Whether this is the scalar of that name, or a union that contains it."""
        return self.name == name


class Scalar(Type):
    """A type that its name describes completely."""

    is_key = True

    def document(self) -> Wire:
        """Return the name of the type."""
        return self.name

    def parse(self, text: str, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a string. Raises `Mismatch`."""
        try:
            return self.read(text)
        except (ValueError, ArithmeticError):
            raise Mismatch(self.described, text) from None

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a JSON value; here it must be a string. Raises `Mismatch`."""
        if not isinstance(value, str):
            raise Mismatch(self.described, value)
        return self.parse(value)

    @abstractmethod
    def read(self, text: str) -> Wire:
        """Return the wire value of a string. Raises `ValueError` or `ArithmeticError`."""


def scalar(name: str) -> Type:
    """Return the scalar type of that name."""
    types: dict[str, Type] = _module(_SCALARS[name]).TYPES
    return types[name]


def from_document(document: Wire, outer: Sequence[Type] = ()) -> Type:
    """Return the type that `document` describes, without the user's classes.

    `outer` are the records that enclose it, innermost first.
    """
    if isinstance(document, str):
        return scalar(document)
    found: Type = _module(_KINDS[document[0]]).read(document, outer)
    return found


def step(where: str, convert: Callable[..., Wire], *values: Any) -> Wire:
    """Convert a part of a value. A `Mismatch` in it is raised with the place `where` it is."""
    try:
        return convert(*values)
    except Mismatch as mismatch:
        raise mismatch.below(where) from None


def shortened(value: Any, limit: int = 120) -> str:
    """Return the `repr` of a value, cut to at most `limit` characters."""
    try:
        text = repr(value)
    except Exception:  # The user's class may raise anything.
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def same(one: Any, other: Any) -> bool:
    """Whether two wire values are equal as JSON: true differs from 1, and 1 from 1.0."""
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _module(name: str) -> Any:
    from importlib import import_module

    return import_module(f".{name}", __package__)
