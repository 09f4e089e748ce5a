"""`flyte delete`."""

from __future__ import annotations

import click

from .cache import gc


@click.group()
def delete() -> None:
    """Delete what is kept on this machine."""


@delete.command("local-cache")
@click.pass_context
def local_cache(ctx: click.Context) -> None:
    """Remove all of the cache that no running task needs: the same as `flyte cache gc --keep 0s`. Runs and their results stay."""
    ctx.invoke(gc, keep="0s")
