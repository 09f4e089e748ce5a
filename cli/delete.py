"""`flyte delete`."""

from __future__ import annotations

import sys
from typing import Any

import click

from flyte_build.errors import UsageError

from .cache import gc
from .console import Console
from .group import Group
from .options import of_a_deployment, of_publishing, session_of


@click.group(cls=Group)
def delete() -> None:
    """Delete deployments, or the local cache."""


@delete.command("local-cache")
@click.pass_context
def local_cache(ctx: click.Context) -> None:
    """Delete everything in the cache that no running task needs.

    This is the same as `flyte cache gc --keep 0s`. Runs and their results are kept.
    """
    ctx.invoke(gc, keep="0s")


@delete.command("deployment")
@of_a_deployment
@of_publishing
@click.option("-y", "--yes", is_flag=True, help="Delete all versions without confirmation.")
@click.argument("name", metavar="ENV[:VERSION|@DIGEST]")
@click.pass_obj
def deployment(console: Console, /, name: str, yes: bool, **options: Any) -> None:
    """Delete a version of an environment; without a version, all of them, after confirmation.

    `latest` then names the newest remaining version. Data that no other deployment needs is left to
    the registry's own garbage collection.
    """
    from flyte_build.deployments.names import DeploymentReference
    from flyte_build.ops.releases import Deployments

    reference = DeploymentReference.parse(name)
    deployments = Deployments(session_of(console, options))
    if not (yes or reference.version or reference.pin):
        _confirm(reference.environment, len(deployments.releases(reference.environment)))
    gone = deployments.delete(reference)
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


def _confirm(environment: str, count: int) -> None:
    """Ask whether to delete all versions. Raises `UsageError` if there is no terminal."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"Cannot ask whether to delete all {count:,} versions of {environment}",
            why="Standard input is not a terminal.",
            hint=f"Name a version, as in {environment}:v1, or confirm with -y.",
        )
    versions = f"all {count:,} versions" if count != 1 else "the only version"
    click.confirm(f"Delete {versions} of {environment}?", abort=True, err=True)
