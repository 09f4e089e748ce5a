"""`flyte get`: runs, deployments, images and the configuration."""

from __future__ import annotations

from typing import Any

import click

from flyte_build.ops.stores import Stores

from .console import Console
from .get_actions import action
from .get_code import code
from .get_io import io
from .get_logs import logs
from .get_runs import run
from .group import Group
from .options import of_a_deployment, session_of

_newest = click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Maximum number to list, newest first.",
)


@click.group(cls=Group)
def get() -> None:
    """Show runs, their logs, inputs, outputs and code; deployments; images; settings."""


for command in (run, action, logs, io, code):
    get.add_command(command)


@get.command("image")
@click.pass_obj
def image(console: Console) -> None:
    """List the images that were built here: the latest of each environment."""
    from flyte_build.images.inspect import images_here
    from flyte_build.text.units import rounded_size

    found = list(images_here(Stores(console).cache))
    if console.json:
        console.document([each.document() for each in found])
    elif found:
        cells = [
            [
                each.env,
                each.platform,
                each.image.identity.short,
                rounded_size(sum(layer.size for layer in each.image.manifest.layers)),
                each.why,
            ]
            for each in found
        ]
        console.table(("ENV", "PLATFORM", "IMAGE", "SIZE", "WHY"), cells)
    else:
        console.line("There are no images yet. Build one with `flyte build FILE`.")


@get.command("task")
@of_a_deployment
@_newest
@click.argument("name", metavar="[ENV.TASK[:VERSION|@DIGEST]]", required=False)
@click.argument("version", metavar="[VERSION]", required=False)
@click.pass_obj
def task(
    console: Console, /, limit: int, name: str | None, version: str | None, **options: Any
) -> None:
    """List the deployed tasks, or the versions of one; or show a single version."""
    from .releases import list_tasks

    list_tasks(console, session_of(console, options), limit, name, version)


@get.command("deployment")
@of_a_deployment
@_newest
@click.argument("name", metavar="[ENV[:VERSION|@DIGEST]]", required=False)
@click.argument("version", metavar="[VERSION]", required=False)
@click.pass_obj
def deployment(
    console: Console, /, limit: int, name: str | None, version: str | None, **options: Any
) -> None:
    """List the deployed environments, or the versions of one; or show a single version."""
    from .releases import list_deployments

    list_deployments(console, session_of(console, options), limit, name, version)


@get.command("config")
@click.pass_obj
def config(console: Console) -> None:
    """Show every setting with its value and source, like `flyte config`."""
    from .config import show_settings

    show_settings(console)
