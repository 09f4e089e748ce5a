"""`flyte delete`."""

from __future__ import annotations

from typing import Any

import click

from .cache import gc
from .console import Console
from .options import of_a_deployment, session_of


@click.group()
def delete() -> None:
    """Delete deployments, or what is kept on this machine."""


@delete.command("local-cache")
@click.pass_context
def local_cache(ctx: click.Context) -> None:
    """Remove all of the cache that no running task needs: the same as `flyte cache gc --keep 0s`.
    Runs and their results stay.
    """
    ctx.invoke(gc, keep="0s")


@delete.command("deployment")
@of_a_deployment
@click.argument("name", metavar="ENV[:VERSION|@DIGEST]")
@click.pass_obj
def deployment(console: Console, /, name: str, **options: Any) -> None:
    """Delete a version of an environment, or all of its versions.

    `latest` is the newest that is left then. What no other deployment needs is given up to the
    registry's own collection.
    """
    from flyte_build.deployments.names import DeploymentReference
    from flyte_build.ops.releases import Deployments

    reference = DeploymentReference.parse(name)
    gone = Deployments(session_of(console, options)).delete(reference)
    if console.json:
        names = [
            {
                "env": each.release.environment,
                "version": each.release.version,
                "digest": each.release.pin,
            }
            for each in gone
        ]
        console.document({"deleted": names})
    else:
        for each in gone:
            console.print(
                f"deleted {each.release.environment}:{each.release.version} {each.release.pin}"
            )
