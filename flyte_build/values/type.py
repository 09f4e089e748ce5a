"""Types of inputs and outputs, and the one converter for all of them.

A `Type` describes a Python annotation. It knows four forms of a value: the text of a command line,
a JSON value (from a file, a form, another program), the *wire* (a JSON value in the one normal form
that is stored and sent), and the Python object. `parse` and `check` make wire of the first two, and
need no class of the user's; `load` and `dump` go between wire and object, where the annotation is
at hand (`annotations.type_of`). `document` and `from_document` carry a type to where it is not.
Only `parse` reads files. Wire is JSON values alone, and no two values of a type share one; `check`
leaves wire as it is.

Each kind of type is in a module of its own, which is loaded when such a type is met: most tasks
need very few.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Wire = Any  # None, bool, int, float, str, list[Wire], dict[str, Wire]
Wires = Mapping[str, Wire]  # Inputs or outputs, by name.
ABSENT: Any = object()  # Stands for a wire value that is not there.

# The module of each kind, by its name in a document: scalars are documented by name alone, the
# others as [kind, ...].
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
    """A value is not of its type: `where` in it (as in `[2].name`, "" for the whole), what was
    `expected`, what was `given`.

    If something is missing there, `ABSENT` was given. `reasons` are sentences that say more.
    """

    def __init__(self, expected: str, given: Any, where: str = "", reasons: str = "") -> None:
        super().__init__(expected, given, where)
        self.expected, self.given, self.where, self.reasons = expected, given, where, reasons

    def below(self, step: str) -> Mismatch:
        """The same mismatch, seen from one level up."""
        return Mismatch(self.expected, self.given, step + self.where, self.reasons)


class Type(ABC):
    """One type. `details` say more of it than its `name`; `inner` are the types that it is made of.

    `is_key` types have text as wire (or a JSON scalar, whose text `parse` takes back): they name
    values in JSON objects. `is_file` types have texts that name files. `words` are texts that a
    shell may offer, where a type has few.
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
        """What a value should be, for people."""
        return f"{self.name}, {self.details}" if self.details else self.name

    @property
    @abstractmethod
    def sample(self) -> Wire:
        """A JSON value of this type, for examples; `ABSENT` if it would have no end."""

    @property
    def example(self) -> str:
        """A value as one would type it in a shell."""
        import shlex

        sample = self.sample
        return shlex.quote(
            sample if isinstance(sample, str) else json.dumps(sample, ensure_ascii=False)
        )

    @abstractmethod
    def document(self) -> Wire:
        """This type as a JSON value."""

    def parse(self, text: str, default: Wire = ABSENT) -> Wire:
        """The wire of a text from a command line: JSON, `@FILE`, or the path of a file. Raises
        `Mismatch`.
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
        """The wire of an option that was given once or more. Raises `Mismatch`."""
        if len(texts) > 1:
            raise Mismatch(
                f"one {self.name}", " ".join(texts), reasons=f"It was given {len(texts)} times."
            )
        return self.parse(texts[0], default)

    @abstractmethod
    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """The wire of a JSON value; `default` supplies what a value may leave out. Raises
        `Mismatch`.
        """

    def fits(self, value: Any) -> bool:
        """Whether a JSON value looks like one of this type, from outside; what `check`
        takes does.
        """
        try:
            self.check(value)
        except Mismatch:
            return False
        return True

    @abstractmethod
    def load(self, wire: Wire) -> Any:
        """The object that a wire value stands for."""

    @abstractmethod
    def dump(self, value: Any) -> Wire:
        """The wire of an object. Raises `Mismatch`."""

    def takes(self, name: str) -> bool:
        """Whether it is the scalar of that name, or a union with it."""
        return self.name == name


class Scalar(Type):
    """A type that is known by its name alone."""

    is_key = True

    def document(self) -> Wire:
        """Its name."""
        return self.name

    def parse(self, text: str, default: Wire = ABSENT) -> Wire:
        """The wire of a text. Raises `Mismatch`."""
        try:
            return self.read(text)
        except (ValueError, ArithmeticError):
            raise Mismatch(self.described, text) from None

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """The wire of a JSON value; by default of text. Raises `Mismatch`."""
        if not isinstance(value, str):
            raise Mismatch(self.described, value)
        return self.parse(value)

    @abstractmethod
    def read(self, text: str) -> Wire:
        """The wire of a text. Raises `ValueError` or `ArithmeticError`."""


def scalar(name: str) -> Type:
    """The scalar type of that name."""
    types: dict[str, Type] = _module(_SCALARS[name]).TYPES
    return types[name]


def from_document(document: Wire, outer: Sequence[Type] = ()) -> Type:
    """The type that `document` describes; there is no class of the user's at hand. `outer` are the
    records around it.
    """
    if isinstance(document, str):
        return scalar(document)
    found: Type = _module(_KINDS[document[0]]).read(document, outer)
    return found


def step(where: str, convert: Callable[..., Wire], *values: Any) -> Wire:
    """Convert a part of a value; a `Mismatch` in it says `where` it is."""
    try:
        return convert(*values)
    except Mismatch as mismatch:
        raise mismatch.below(where) from None


def shortened(value: Any, limit: int = 120) -> str:
    """Return the `repr` of a value, cut to at most `limit` characters."""
    try:
        text = repr(value)
    except Exception:  # Whatever a class of the user's raises.
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def same(one: Any, other: Any) -> bool:
    """Whether two wire values are the same JSON: true is not 1, and 1 is not 1.0."""
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _module(name: str) -> Any:
    from importlib import import_module

    return import_module(f".{name}", __package__)
