"""`flyte image`: looking at images."""

from __future__ import annotations

import click

from flyte_build.listener import Listener
from flyte_build.stores import Stores
from flyte_build.texts import rounded_size

from .console import Console


@click.group()
def image() -> None:
    """What an image holds."""


@image.command("inspect")
@click.argument("ref", metavar="REF")
@click.pass_obj
def inspect(console: Console, ref: str) -> None:
    """Show the layers of an image with their sizes, its packages and variables, and why it was built.

    REF is a reference of a registry, an environment's name, or a digest of an image that was built here.
    """
    from flyte_build.cas.registry.opening import open_repository
    from flyte_build.cas.registry.patience import Patience
    from flyte_build.inspection import describe, find

    stores = Stores(Listener())
    patience = Patience()
    with stores.cache.preparing():
        found, why = find(ref, stores.cache, lambda name: open_repository(name, stores.counters, patience))
    document = {**describe(found), "why": why}
    if console.json:
        console.document(document)
        return
    for name in ("digest", "identity", "platform", "workdir", "user"):
        console.print(f"{name:9} {document[name]}")
    console.print(f"{'size':9} {rounded_size(document['size'])}, compressed")
    if why:
        console.print(f"{'built':9} {why}")
    for layer in document["layers"]:
        console.print(f"  {layer['digest'][7:19]} {rounded_size(layer['size']):>9}  {layer['what']}")
    for name, value in document["variables"].items():
        console.print(f"  {name}={value}")
