"""Classes whose objects are written as text: `Path`, `UUID`, `Decimal`; and `bytes`, as base64 (RFC
4648).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .type import ABSENT, Mismatch, Scalar, Type, Wire

_BASE64 = "base64:"


class Text(Scalar):
    """A class that makes an object from its text; `module` holds it, and is loaded when
    it is used.
    """

    def __init__(
        self, name: str, module: str, sample: str, base: str = "", is_file: bool = False
    ) -> None:
        super().__init__(name)
        self._module, self._sample, self._base, self.is_file = module, sample, base or name, is_file

    @property
    def sample(self) -> Wire:
        """A text."""
        return self._sample

    def read(self, text: str) -> Wire:
        """The text that the object gives back."""
        return str(self.load(text))

    def load(self, wire: Wire) -> Any:
        """The object."""
        return getattr(import_module(self._module), self.name)(wire)

    def dump(self, value: Any) -> Wire:
        """Its text."""
        if not isinstance(value, getattr(import_module(self._module), self._base)):
            raise Mismatch(self.name, value)
        return str(value)


class Number(Text):
    """Text that may also be a JSON number."""

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """The text of the number. Raises `Mismatch`."""
        return super().check(str(value) if type(value) in (int, float) else value)


class Bytes(Scalar):
    """On a command line `base64:...`, or `@FILE` for a file's content."""

    details = "base64:..., or @FILE for what a file holds"
    sample = "base64:aGk="
    is_key = False  # A text that names a file is no key.
    is_file = True

    def parse(self, text: str, default: Wire = ABSENT) -> Wire:
        """The wire of a text, or of a file's content. Raises `Mismatch`."""
        if not text.startswith("@"):
            return super().parse(text)
        try:
            with open(text[1:], "rb") as file:
                return self.dump(file.read())
        except OSError as error:
            raise Mismatch(
                self.name, text, reasons=f"{error.filename}: {error.strerror}."
            ) from None

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """The wire of a JSON text; this reads no file. Raises `Mismatch`."""
        return super().parse(value) if isinstance(value, str) else super().check(value)

    def read(self, text: str) -> Wire:
        """The text in its one form. Raises `ValueError`."""
        from base64 import b64decode

        if not text.startswith(_BASE64):
            raise ValueError(text)
        return self.dump(b64decode(text.removeprefix(_BASE64), validate=True))

    def load(self, wire: Wire) -> Any:
        """The bytes."""
        from base64 import b64decode

        return b64decode(wire.removeprefix(_BASE64))

    def dump(self, value: Any) -> Wire:
        """The wire of bytes. Raises `Mismatch`."""
        from base64 import b64encode

        if not isinstance(value, bytes):
            raise Mismatch(self.name, value)
        return _BASE64 + b64encode(value).decode("ascii")


TYPES: dict[str, Type] = {
    "Path": Text("Path", "pathlib", "data/in.txt", "PurePath", is_file=True),
    "UUID": Text("UUID", "uuid", "12345678-1234-5678-1234-567812345678"),
    "Decimal": Number("Decimal", "decimal", "0.10"),
    "bytes": Bytes("bytes"),
}
