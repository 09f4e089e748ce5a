"""`flyte config`."""

from __future__ import annotations

import json
import os
from typing import Any

import click
from click.shell_completion import CompletionItem

from flyte_build.errors import UsageError
from flyte_build.settings.configuration import Configuration, places_of
from flyte_build.settings.places import Places
from flyte_build.settings.table import BY_KEY, SETTINGS, Setting, find_setting
from flyte_build.workspace.workspace import root_here

from .console import Console
from .group import Group


def _keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(each.key, help=each.text)
        for each in SETTINGS
        if each.key.startswith(incomplete)
    ]


def _values(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    setting = BY_KEY.get(ctx.params.get("key", ""))
    return [
        CompletionItem(each)
        for each in (setting.kind.choices if setting else ())
        if each.startswith(incomplete)
    ]


@click.group(cls=Group, invoke_without_command=True)
@click.pass_context
def config(ctx: click.Context) -> None:
    """Show every setting with its value and source."""
    if ctx.invoked_subcommand is None:
        show_settings(ctx.obj)


def show_settings(console: Console) -> None:
    """Print every setting with its value and its source."""
    held = console.configuration(_here())
    if console.json:
        console.document([_document(each, held) for each in SETTINGS])
        return
    rows = [
        (each.key, _text(each.kind.show(held[each])), held.source(each))
        for each in SETTINGS
        if each.acted_on or _is_given(each, held)
    ]
    console.table(("SETTING", "VALUE", "FROM"), rows)


@config.command("get")
@click.argument("key", shell_complete=_keys)
@click.pass_obj
def get(console: Console, key: str) -> None:
    """Print the value of one setting."""
    setting = find_setting(key)
    held = console.configuration(_here())
    if console.json:
        console.document(_document(setting, held))
    else:
        console.print(_text(setting.kind.show(held[setting])))


@config.command("set")
@click.option(
    "--user",
    "place",
    flag_value="user",
    default="user",
    help="Set it in the user's file (default).",
)
@click.option(
    "--project", "place", flag_value="project", help="Set it in the project's file, at its root."
)
@click.argument("key", shell_complete=_keys)
@click.argument("value", shell_complete=_values)
@click.pass_obj
def set_(console: Console, place: str, key: str, value: str) -> None:
    """Write a setting to a configuration file, whose other contents are kept."""
    from flyte_build.settings.edit import set_value
    from flyte_build.settings.files import is_flyte2

    setting = find_setting(key)
    if not setting.in_files:
        raise UsageError(
            f"{key} cannot be set in a file", hint=f"Set the variable {setting.variable}."
        )
    setting.from_text(value)
    path = console.config or writable_file(place)
    if is_flyte2(path):
        raise UsageError(
            f"Cannot write settings to {path}",
            why="It is a configuration file of Flyte 2, which is only read.",
            hint="Run `flyte config set` without `-c`.",
        )
    set_value(path, setting, setting.toml(value))
    if console.json:
        console.document({"key": key, "value": setting.toml(value), "file": path})
    else:
        console.line(f"{key} is set in {path}")
    held = console.configuration(_here())
    if held.source(setting) != path:
        console.note(
            f"The value in effect is {_text(setting.kind.show(held[setting]))}, from"
            f" {held.source(setting)}."
        )


@config.command("path")
@click.pass_obj
def path(console: Console) -> None:
    """List the configuration files that are read here; later ones take precedence."""
    paths = [console.config] if console.config else list(places_of(_here()))
    if console.json:
        console.document([{"path": each, "exists": os.path.exists(each)} for each in paths])
        return
    console.table(
        ("FILE", "STATE"),
        [(each, "read" if os.path.exists(each) else "not there") for each in paths],
    )


def writable_file(place: str) -> str:
    """Return the path of the file to write the user's or the project's settings to."""
    if place == "user":
        return Places.find().config
    pyproject = f"{_here()}/pyproject.toml"
    if not os.path.exists(f"{_here()}/flyte.toml") and os.path.exists(pyproject):
        from flyte_build.settings.files import read_file

        if read_file(pyproject, lambda sentence: None):
            return pyproject
    return f"{_here()}/flyte.toml"


def _here() -> str:
    return root_here()


def _is_given(setting: Setting[Any], held: Configuration) -> bool:
    return held.source(setting) != "default"


def _document(setting: Setting[Any], held: Configuration) -> dict[str, Any]:
    return {
        "key": setting.key,
        "value": setting.kind.show(held[setting]),
        "from": held.source(setting),
        "default": setting.kind.show(setting.default),
        "variable": setting.variable,
        "acted_on": setting.acted_on,
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
