"""Validation of JSON values by shapes, and the shape of a deployment's document.

Documents are validated before they are used. A shape is a type (`str`, `bool`, `int`, or `float`
for any finite number), None, a list with the shape of its items, a mapping of names to shapes
(`"name?"` may be absent, `"*"` stands for all names), a tuple of shapes of which one must match, or
a function that raises `ValueError`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.declarations.quantity import amount_of
from flyte_build.errors import StoreError

_LONGEST = 1e9  # Maximum duration in seconds: timers accept it.
_MOST = 1_000_000  # Maximum number of retries.
_DEVICES = re.compile(r"([^:]+:)?[0-9]{1,9}")  # With their type, as in `A100:4`.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def check(value: Any, shape: Any, where: str = "the document") -> None:
    """Raise `ValueError` unless a JSON value matches a shape; `where` names it in the message."""
    if isinstance(shape, tuple):
        for each in shape[:-1]:
            try:
                return check(value, each, where)
            except ValueError:
                continue
        return check(value, shape[-1], where)
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} is not a list")
        for number, item in enumerate(value):
            check(item, shape[0], f"{where}[{number}]")
        return None
    if isinstance(shape, Mapping):
        return _check_names(value, shape, where)
    if shape is None or isinstance(shape, type):
        return _check_scalar(value, shape, where)
    try:
        shape(value)
    except ValueError as error:
        raise ValueError(f"{where} {error}") from None
    return None


def _check_names(value: Any, shape: Mapping[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    for name in value:
        text(name)
        if "*" in shape:
            check(value[name], shape["*"], f"{where}.{name!r:.50}")
    for name, each in shape.items():
        if name == "*" or (name.endswith("?") and name[:-1] not in value):
            continue
        if name.rstrip("?") not in value:
            raise ValueError(f"{where} has no {name}")
        check(value[name.rstrip("?")], each, f"{where}.{name.rstrip('?')}")


def _check_scalar(value: Any, shape: type | None, where: str) -> None:
    if shape is str:
        text(value, where)
    elif shape is float:
        if type(value) is not int and not (type(value) is float and math.isfinite(value)):
            raise ValueError(f"{where} is not a number")
    elif (shape is None and value is not None) or (shape is not None and type(value) is not shape):
        raise ValueError(f"{where} is not of the type {getattr(shape, '__name__', 'null')}")


def text(value: Any, where: str = "a name") -> None:
    """Raise `ValueError` unless a value is a string usable as a path, argument or variable."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{where} is not a valid string")
    os.fsencode(value)  # Raises `UnicodeEncodeError` for a lone surrogate.


def digest(value: Any) -> None:
    """Raise `ValueError` unless a value is a digest."""
    try:
        Digest.parse(value)
    except StoreError as error:
        raise ValueError(f"is not a digest: {error.what}") from None


def _inside(value: Any) -> None:
    text(value)
    if os.path.isabs(value) or ".." in value.split("/"):
        raise ValueError("is outside of the code")


def _seconds(value: Any) -> None:
    check(value, float)
    if not 0 <= value <= _LONGEST:
        raise ValueError("is not a valid duration")


def _times(value: Any) -> None:
    check(value, int)
    if not 0 <= value <= _MOST:
        raise ValueError("is not a valid number of retries")


def _variables(value: Any) -> None:
    check(value, {"*": str}, "env_vars")
    if any(not name or "=" in name for name in value):
        raise ValueError("has an invalid variable name")


_RUNTIMES: Mapping[str, Any] = {
    "host": {"kind": str},
    "reference": {"kind": str, "uri": str, "digest": digest},
    "image": {
        "kind": str,
        "digest": digest,
        "platforms": {"*": digest},
        "python": str,
        "packages": {"*": [lambda wheel: _wheel(wheel)]},
    },
}


def _wheel(value: Any) -> None:
    check(value, [str], "a wheel")
    if len(value) != 4:
        raise ValueError("is not a name, a version, a file and a digest")
    digest(value[3])


def _runtime(value: Any) -> None:
    check(value, {"kind": str}, "it")
    if value["kind"] not in _RUNTIMES:
        raise ValueError(f"is of the unknown kind {value['kind']!r:.50}")
    check(value, _RUNTIMES[value["kind"]], "it")


def _schema(value: Any) -> None:
    """Raise `ValueError` for a type's schema that contains control characters."""
    for each in value if isinstance(value, list) else ():
        _schema(each)
    if isinstance(value, str) and _CONTROL.search(value):
        raise ValueError("contains control characters")


def _output(value: Any) -> None:
    check(value, [lambda part: None], "an output")
    if len(value) != 2:
        raise ValueError("is not a name and a type")
    text(value[0])
    _schema(value[1])


def _name(value: Any) -> None:
    text(value)
    if not value.isidentifier():
        raise ValueError("is not a valid identifier")


def _tasks(value: Any) -> None:
    check(value, {"*": _TASK}, "it")
    for name in value:
        _name(name)


def _amounts(value: Any) -> None:
    """Raise `ValueError` unless a value is an amount, or a pair of request and limit."""
    pair = value if isinstance(value, list) and len(value) == 2 else [value]
    for each in pair:
        amount_of(each)


def _shared_memory(value: Any) -> None:
    if value != "auto":
        amount_of(value)


def _devices(value: Any) -> None:
    if type(value) not in (int, str) or not _DEVICES.fullmatch(str(value)):
        raise ValueError("is not a number of devices")


def anything(value: Any) -> None:
    """Accept any value."""


_INPUT = {"name": _name, "schema": _schema, "type": str, "default_text": str, "doc": str}
_RESOURCES = {
    "cpu?": (None, _amounts),
    "memory?": (None, _amounts),
    "gpu?": (None, _devices),
    "disk?": (None, amount_of),
    "shm?": (None, _shared_memory),
    "*": anything,
}
_TASK = {
    "module": str,
    "variable": str,
    "function": str,
    "short_name": str,
    "async": bool,
    "backoff": [_seconds],
    "env_vars": _variables,
    "interface": {"doc": str, "inputs": [_INPUT], "outputs": [_output]},
    "options": {"*": anything, "resources?": _RESOURCES},
    "retries": _times,
    "timeout": (None, _seconds),
    "max_queued?": (None, _seconds),
    "deadline?": (None, _seconds),
    "unannotated": [str],
}
DOCUMENT: Mapping[str, Callable[[Any], None] | Any] = {
    "format": int,
    "name": str,
    "description": str,
    "depends_on": [str],
    "code": {"tree": digest, "file": _inside, "roots": [_inside], "last": [anything]},
    "environment": _runtime,
    "image": (None, {"*": anything}),
    "tasks": _tasks,
}
