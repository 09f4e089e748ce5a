"""`flyte create`."""

from __future__ import annotations

import click

from .console import Console
from .group import Group


@click.group(cls=Group)
def create() -> None:
    """Make a configuration file."""


@create.command("config")
@click.option(
    "--user", "place", flag_value="user", default="user", help="The user's file (the default)."
)
@click.option(
    "--project", "place", flag_value="project", help="The project's file, flyte.toml at its root."
)
@click.pass_obj
def config(console: Console, place: str) -> None:
    """Write a configuration file that holds every setting as a comment. A file that is there stays
    as it is.
    """
    from flyte_build.settings.edit import create

    from .config import writable_file

    path = console.config or writable_file(place)
    create(path)
    if console.json:
        console.document({"file": path})
    else:
        console.line(f"{path} is written; each setting in it is a comment so far")
