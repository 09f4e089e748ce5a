"""Reading configuration files: TOML of ours, and the YAML of Flyte 2."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from flyte_build.errors import UsageError

from .table import BY_KEY, SECTIONS, Setting, find_setting, nearest, placed

Found = list[tuple[Setting[Any], Any]]
# The sections of a Flyte 2 file that concern us; the rest is about its control plane.
_FLYTE2 = ("task", "image", "local")


def read_file(path: str, note: Callable[[str], None]) -> Found:
    """The settings in a file, with their values. `note` is told what is accepted and not acted on.
    Raises `UsageError`.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        raise UsageError(
            f"There is no configuration file {path}", hint="`flyte create config` writes one."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The configuration file {path} cannot be read", why=str(error)) from None
    found, unused = _flyte2(path, text) if is_flyte2(path) else (_toml(path, text), [])
    unused = [*unused, *(setting.key for setting, _ in found if not setting.acted_on)]
    if unused:
        note(f"{path}: accepted, but not acted on: {', '.join(unused)}.")
    return found


def is_flyte2(path: str) -> bool:
    """Whether a file is one of Flyte 2, by its name."""
    return path.endswith((".yaml", ".yml"))


def prefix(path: str) -> tuple[str, ...]:
    """The table of a TOML file that holds the settings."""
    return ("tool", "flyte") if os.path.basename(path) == "pyproject.toml" else ()


def _toml(path: str, text: str) -> Found:
    import tomllib

    try:
        document: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is no valid TOML", why=str(error)) from None
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
    """The values in nested tables by their dotted keys; a setting's own table is a value."""
    if isinstance(value, dict) and (value or key in ("", *SECTIONS)) and key not in BY_KEY:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _line(text: str, names: list[str]) -> int:
    """The line of valid TOML on which a key stands: the file up to there is the first that has it.
    0 if none is found.
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
    """Whether TOML has a key; None if it ends in the middle of a value."""
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
    """What a file of Flyte 2 says that we know, and the names of all else."""
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no valid YAML", why=str(error)) from None
    if not isinstance(document, dict | None):
        raise UsageError(f"{path} is no configuration file", why="It holds no names with values.")
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
