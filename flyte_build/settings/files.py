"""Parsing of configuration files: our TOML, and the YAML of Flyte 2."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from flyte_build.errors import UsageError

from .table import BY_KEY, SECTIONS, Setting, find_setting, nearest, placed

Found = list[tuple[Setting[Any], Any]]
# The sections of a Flyte 2 file that are read; the others configure its control plane.
_FLYTE2 = ("task", "image", "local")


def read_file(path: str, note: Callable[[str], None]) -> Found:
    """Return the settings in a file, with their values.

    `note` is called with a message on those that have no effect. Raises `UsageError`.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        raise UsageError(
            f"There is no configuration file {path}", hint="Create it with `flyte create config`."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read the configuration file {path}", why=str(error)) from None
    found, unused = _flyte2(path, text) if is_flyte2(path) else (_toml(path, text), [])
    unused = [*unused, *(setting.key for setting, _ in found if not setting.acted_on)]
    if unused:
        note(f"{path}: accepted, but ignored: {', '.join(unused)}.")
    return found


def is_flyte2(path: str) -> bool:
    """Whether a file is a configuration file of Flyte 2, judging by its name."""
    return path.endswith((".yaml", ".yml"))


def prefix(path: str) -> tuple[str, ...]:
    """Return the names of the nested tables that contain the settings in a TOML file."""
    return ("tool", "flyte") if os.path.basename(path) == "pyproject.toml" else ()


def _toml(path: str, text: str) -> Found:
    import tomllib

    try:
        document: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML", why=str(error)) from None
    names = prefix(path)
    for name in names:
        document = document.get(name, {}) if isinstance(document, dict) else {}
    found = []
    for key, value in _leaves(document):
        try:
            setting = find_setting(key)
            if not setting.in_files:
                raise UsageError(
                    f"{key} cannot be set in a file", hint=f"Set the variable {setting.variable}."
                )
            found.append((setting, setting.from_toml(value)))
        except UsageError as error:
            line = _line(text, [*names, *key.split(".")])
            raise placed(error, f"{path}:{line}" if line else path) from None
    return found


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and values of nested tables; a table that is a setting is a value."""
    if isinstance(value, dict) and (value or key in ("", *SECTIONS)) and key not in BY_KEY:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _line(text: str, names: list[str]) -> int:
    """Return the line number of a key in valid TOML, or 0 if it is not found.

    The key is on the line that mentions it last in the shortest beginning of the file that is
    valid TOML and has the key.
    """
    lines, mention = text.splitlines(keepends=True), 0
    for end, line in enumerate(lines, 1):
        mention = end if names[-1] in line else mention
        if mention and (has := _has("".join(lines[:end]), names)) is not None:
            if has:
                return mention
            mention = 0
    return 0


def _has(text: str, names: list[str]) -> bool | None:
    """Whether TOML has a key; None if the text is not valid, as it ends within a value."""
    import tomllib

    try:
        value: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True


def _flyte2(path: str, text: str) -> tuple[Found, list[str]]:
    """Return the settings in a file of Flyte 2, and the names of all other values."""
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not valid YAML", why=str(error)) from None
    if not isinstance(document, dict | None):
        raise UsageError(
            f"{path} is not a configuration file", why="It must contain a mapping at the top level."
        )
    found, unused = [], []
    for key, value in _leaves(document or {}):
        if value is None:
            continue
        if key not in BY_KEY or key.partition(".")[0] not in _FLYTE2:
            near = nearest(key, [each for each in BY_KEY if each.partition(".")[0] in _FLYTE2])
            unused.append(f"{key} ({near})" if near else key)
            continue
        try:
            found.append((BY_KEY[key], BY_KEY[key].from_toml(value)))
        except UsageError as error:
            node: Any = yaml.compose(text)
            for name in key.split("."):
                node = next(inner for outer, inner in node.value if outer.value == name)
            raise placed(error, f"{path}:{node.start_mark.line + 1}") from None
    return found, unused
