"""`flyte create`."""

from __future__ import annotations

import click

from .console import Console
from .group import Group


@click.group(cls=Group)
def create() -> None:
    """Create a configuration file."""


@create.command("config")
@click.option(
    "--user", "place", flag_value="user", default="user", help="Create the user's file (default)."
)
@click.option(
    "--project",
    "place",
    flag_value="project",
    help="Create the project's file: flyte.toml at its root.",
)
@click.pass_obj
def config(console: Console, place: str) -> None:
    """Create a configuration file that contains every setting as a comment.

    An existing file is not overwritten.
    """
    from flyte_build.settings.edit import create

    from .config import writable_file

    path = console.config or writable_file(place)
    create(path)
    if console.json:
        console.document({"file": path})
    else:
        console.line(f"Created {path}, with every setting as a comment")
