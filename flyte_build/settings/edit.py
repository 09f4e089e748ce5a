"""Writing configuration files: one value, with all else as it stands; and a new file with a comment
for every setting.
"""

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
    """Write the TOML `value` into the file at `path`, which is made if need be; comments and order
    stay.

    Raises `UsageError` if the file is no TOML or has something else in the place,
    `PreparationError` if it cannot be written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = os.path.realpath(path)  # A link stays one.
    names = (*prefix(path), *setting.key.split("."))
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with locked_folder(os.path.dirname(path)):  # Of two commands at once none is lost.
            document: Any = tomlkit.parse(_read(path))
            table = document
            for at, name in enumerate(names[:-1]):
                if name not in table:
                    table[name] = tomlkit.table(is_super_table=at < len(names) - 2)
                table = table[name]
                if not isinstance(table, dict):
                    raise UsageError(
                        f"{path}: {'.'.join(names[: at + 1])} is no table",
                        hint=f"It must be one, to hold {setting.key}.",
                    )
            table[names[-1]] = value
            _write(path, tomlkit.dumps(document))
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no valid TOML", why=str(error)) from None
    except OSError as error:
        raise _unwritable(path, error) from None


def create(path: str) -> None:
    """Write a file that holds every setting, each with its default and commented out. Raises
    `UsageError` if one is there.
    """
    lines = [
        "# Configuration of flyte-build; `flyte config` shows what holds, and where it comes from."
    ]
    section = ""
    for setting in SETTINGS:
        if not setting.acted_on or not setting.in_files:
            continue
        table, _, name = setting.key.rpartition(".")
        if table != section:
            section = table
            lines += ["", f"[{section}]"]
        # JSON of texts, numbers, booleans and lists is TOML too.
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
            f"{path} is there already", hint="`flyte config set` changes a value in it."
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
        f"The configuration file {path} cannot be written", why=error.strerror or str(error)
    )
