"""Editing of configuration files: setting one value, and creating a commented file."""

from __future__ import annotations

import json
import os
from typing import Any

from flyte_build.cas.atomic import replace_file
from flyte_build.cas.lease import locked_folder
from flyte_build.errors import PreparationError, UsageError

from .files import prefix
from .table import SETTINGS, Setting


def set_value(path: str, setting: Setting[Any], value: Any) -> None:
    """Set a setting to a TOML `value` in the file at `path`, which is created if it is missing.

    Comments and order are preserved. Raises `UsageError` if the file is not TOML or does not have
    a table where the setting needs one, and `PreparationError` if it cannot be written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = os.path.realpath(path)  # A symbolic link stays one.
    names = (*prefix(path), *setting.key.split("."))
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with locked_folder(os.path.dirname(path)):  # Concurrent commands lose no edit.
            document: Any = tomlkit.parse(_read(path))
            table = document
            for at, name in enumerate(names[:-1]):
                if name not in table:
                    table[name] = tomlkit.table(is_super_table=at < len(names) - 2)
                table = table[name]
                if not isinstance(table, dict):
                    raise UsageError(
                        f"{path}: {'.'.join(names[: at + 1])} is not a table",
                        hint=f"Make it a table, so that it can contain {setting.key}.",
                    )
            table[names[-1]] = value
            _write(path, tomlkit.dumps(document))
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML", why=str(error)) from None
    except OSError as error:
        raise _unwritable(path, error) from None


def create(path: str) -> None:
    """Create a file that lists every setting with its default, commented out.

    Raises `UsageError` if the file exists, and `PreparationError` if it cannot be written.
    """
    lines = [
        "# Configuration of flyte-build; `flyte config` shows the current values and their sources."
    ]
    section = ""
    for setting in SETTINGS:
        if not setting.acted_on or not setting.in_files:
            continue
        table, _, name = setting.key.rpartition(".")
        if table != section:
            section = table
            lines += ["", f"[{section}]"]
        # The JSON of strings, numbers, booleans and lists is valid TOML.
        lines += [
            f"# {setting.text} Expected: {setting.kind.expected}.",
            f"# {name} = {json.dumps(setting.kind.show(setting.default))}",
        ]
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except FileExistsError:
        raise UsageError(
            f"{path} already exists", hint="Change a value in it with `flyte config set`."
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    replace_file(path, text.encode(), mode=0o666)


def _unwritable(path: str, error: OSError) -> PreparationError:
    return PreparationError(
        f"Cannot write the configuration file {path}", why=error.strerror or str(error)
    )
