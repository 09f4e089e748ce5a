"""JSON values from strings and from JSON, YAML and TOML files.

Values of YAML and TOML that JSON lacks become strings: dates and times in ISO 8601, and the names
of non-finite numbers.
"""

from __future__ import annotations

import json
import math
from typing import Any

_SUFFIXES = ("json", "yaml", "yml", "toml")


def names_file(text: str) -> bool:
    """Whether a command-line argument stands for the content of a file.

    That is the case for `@FILE` and for the path of a .json, .yaml, .yml or .toml file.
    """
    return text.startswith("@") or (
        _suffix(text) in _SUFFIXES and "\n" not in text and text[:1] not in ("[", "{", '"')
    )


def read_text(text: str) -> Any:
    """Return the value of JSON text, or of the file that `text` names.

    Raises `ValueError`, `RecursionError` or `OSError`.
    """
    return read_file(text.removeprefix("@")) if names_file(text) else _from_json(text)


def read_file(path: str) -> Any:
    """Return the value in a file: YAML or TOML by the suffix of its name, otherwise JSON.

    Raises `ValueError`, `RecursionError` or `OSError`.
    """
    with open(path, encoding="utf-8") as file:
        data = file.read()
    try:
        return _PARSERS.get(_suffix(path), _from_json)(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _from_json(data: str) -> Any:
    return json.loads(data, parse_constant=str)


def _from_toml(data: str) -> Any:
    import tomllib

    return _plain(tomllib.loads(data))


def _from_yaml(data: str) -> Any:
    import yaml

    try:
        return _plain(yaml.safe_load(data))
    except yaml.YAMLError as error:
        raise ValueError(error) from None


_PARSERS = {"toml": _from_toml, "yaml": _from_yaml, "yml": _from_yaml}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_name(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return list(map(_plain, value))
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        raise ValueError("binary values are not supported")
    return str(value.isoformat())  # Only dates and times remain.


def _name(key: Any) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _suffix(path: str) -> str:
    return path.rpartition(".")[2].lower()
