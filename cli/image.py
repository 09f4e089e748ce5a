"""`flyte image`."""

from __future__ import annotations

import click

from flyte_build.ops.stores import Stores
from flyte_build.runner.reporter import RunReporter
from flyte_build.text.units import rounded_size

from .console import Console
from .group import Group


@click.group(cls=Group)
def image() -> None:
    """Inspect images."""


@image.command("inspect")
@click.option(
    "--platform",
    metavar="OS/MACHINE",
    help="Platform to show, if there are several (default: this machine's).",
)
@click.argument("ref", metavar="REF")
@click.pass_obj
def inspect(console: Console, platform: str | None, ref: str) -> None:
    """Show the layers, sizes, packages and variables of an image, and why it was built.

    REF is a reference in a registry, or the environment's name or the digest of an image that was
    built here.
    """
    from flyte_build.images.inspect import find

    stores = Stores(RunReporter())
    with stores.cache.preparing():
        found = find(ref, platform, stores.cache, stores.repositories.open)
    document = found.document()
    if console.json:
        console.document(document)
        return
    for name in ("digest", "identity", "platform", "workdir", "user"):
        console.print(f"{name:9} {document[name]}")
    console.print(f"{'size':9} {rounded_size(document['size'])}, compressed")
    if len(found.platforms) > 1:
        console.print(f"{'platforms':9} {', '.join(found.platforms)}")
    if found.why:
        console.print(f"{'built':9} {found.why}")
    for layer in document["layers"]:
        console.print(
            f"  {layer['digest'][7:19]} {rounded_size(layer['size']):>9}  {layer['what']}"
        )
    for name, value in document["variables"].items():
        console.print(f"  {name}={value}")
