"""Classes whose wire values are strings: `Path`, `UUID`, `Decimal`, and `bytes` (RFC 4648)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .type import ABSENT, Mismatch, Scalar, Type, Wire

_BASE64 = "base64:"


class Text(Scalar):
    """A class whose constructor takes a string; `module` contains it, and is imported on use."""

    def __init__(
        self, name: str, module: str, sample: str, base: str = "", is_file: bool = False
    ) -> None:
        super().__init__(name)
        self._module, self._sample, self._base, self.is_file = module, sample, base or name, is_file

    @property
    def sample(self) -> Wire:
        """Example string."""
        return self._sample

    def read(self, text: str) -> Wire:
        """Return the normal form of a string: the object's own `str`."""
        return str(self.load(text))

    def load(self, wire: Wire) -> Any:
        """Return an object of the class."""
        return getattr(import_module(self._module), self.name)(wire)

    def dump(self, value: Any) -> Wire:
        """Return the string of an object. Raises `Mismatch`."""
        if not isinstance(value, getattr(import_module(self._module), self._base)):
            raise Mismatch(self.name, value)
        return str(value)


class Number(Text):
    """A class that also accepts JSON numbers."""

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the wire string of a JSON string or number. Raises `Mismatch`."""
        return super().check(str(value) if type(value) in (int, float) else value)


class Bytes(Scalar):
    """`bytes`; on a command line `base64:...`, or `@FILE` for the content of a file."""

    details = "base64:..., or @FILE for the content of a file"
    sample = "base64:aGk="
    is_key = False  # A string may name a file, so it cannot be a key.
    is_file = True

    def parse(self, text: str, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a string, or of a file's content. Raises `Mismatch`."""
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
        """Return the wire value of a JSON string, without reading files. Raises `Mismatch`."""
        return super().parse(value) if isinstance(value, str) else super().check(value)

    def read(self, text: str) -> Wire:
        """Return the normal form of a base64 string. Raises `ValueError`."""
        from base64 import b64decode

        if not text.startswith(_BASE64):
            raise ValueError(text)
        return self.dump(b64decode(text.removeprefix(_BASE64), validate=True))

    def load(self, wire: Wire) -> Any:
        """Return the bytes."""
        from base64 import b64decode

        return b64decode(wire.removeprefix(_BASE64))

    def dump(self, value: Any) -> Wire:
        """Return the wire value of bytes. Raises `Mismatch`."""
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
