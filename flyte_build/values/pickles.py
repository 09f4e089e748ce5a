"""Pickles between tasks, as wire values: `{"type", "text", "$pickle"}`.

What pickle can only name is pickled by name, if it can be imported. Lambdas, functions defined in
others, and their classes are pickled by value, by cloudpickle; then `"python"` is the version that
reads them.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

from flyte_build._alias import PACKAGE

from .type import Mismatch, Wire, shortened

if TYPE_CHECKING:
    from types import ModuleType

KEY = "$pickle"
LIBRARIES = "flyte_libraries"
"""Directory beside this package in images without our dependencies; it holds cloudpickle."""

_TEXT = 4000  # Characters of a pickled object's text: those of a table of many rows.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def is_pickle(wire: Wire) -> bool:
    """Whether a wire value is a pickle."""
    return isinstance(wire, dict) and KEY in wire


def pickled(value: Any, expected: str) -> Wire:
    """Return the pickle of an object; `expected` describes its type. Raises `Mismatch`."""
    import pickle
    from base64 import b64encode

    if getattr(type(value), "__module__", "") == "__main__":
        raise Mismatch(
            expected,
            value,
            reasons=(
                "Its class exists only in this process: define it in a module, or as a dataclass."
            ),
        )
    version = {}
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception:  # The object's own methods may raise anything.
        try:
            data, version = _by_value(value), {"python": _PYTHON}
        except Exception as error:
            raise Mismatch(expected, value, reasons=f"It cannot be pickled: {error}") from None
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    # An address would make each call of the same program another action.
    text = _ADDRESS.sub("", shortened(value, _TEXT))
    return {"type": name, "text": text, **version, KEY: b64encode(data).decode("ascii")}


def unpickled(wire: Wire, expected: str) -> Any:
    """Return the object of a pickle; `expected` describes its type.

    Raises `Mismatch` if another Python has pickled it by value, and any exception that unpickling
    raises.
    """
    import pickle
    from base64 import b64decode

    if version := wire.get("python"):
        if version != _PYTHON:
            raise Mismatch(
                expected,
                wire["text"],
                reasons=(
                    f"It was pickled by Python {version}, and this is Python {_PYTHON}: define it"
                    " at the top level of a module, or use the same Python for both tasks."
                ),
            )
        _cloudpickle()
    return pickle.loads(b64decode(wire[KEY]))


def readable(wire: Wire) -> Wire:
    """Return wire in which each pickle is replaced with the text of its object."""
    if is_pickle(wire):
        return wire["text"]
    if isinstance(wire, dict):
        return {name: readable(value) for name, value in wire.items()}
    return [readable(value) for value in wire] if isinstance(wire, list) else wire


def _by_value(value: Any) -> bytes:
    import io
    import pickle

    class Pickler(_cloudpickle().Pickler):  # type: ignore[misc]  # It has no types.
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, io.IOBase):  # Cloudpickle would copy the content of a file.
                raise pickle.PicklingError(f"cannot pickle {type(value).__name__!r} object")
            return super().reducer_override(value)

    buffer = io.BytesIO()
    Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def _cloudpickle() -> ModuleType:
    """Import cloudpickle: the one that is installed, or else the one that came with this package.

    Pickles by value name it, so it must be importable as itself.
    """
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("cloudpickle") is None:
        sys.path.append(os.path.join(os.path.dirname(PACKAGE), LIBRARIES))
    return import_module("cloudpickle")
