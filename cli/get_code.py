"""`flyte get code`."""

from __future__ import annotations

import os

import click

from flyte_build.cas.digest import Digest
from flyte_build.errors import NotFound
from flyte_build.ops.stores import Stores
from flyte_build.text.wording import plural

from .console import Console
from .options import actions, runs


@click.command("code")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(),
    help="Directory to write to, empty or new (default: the run's name).",
)
@click.argument("run", metavar="RUN", shell_complete=runs)
@click.argument("action", metavar="[ACTION]", required=False, shell_complete=actions)
@click.pass_obj
def code(console: Console, output: str | None, run: str, action: str | None) -> None:
    """Write the files of a run's bundle to a directory."""
    from flyte_build.bundler.checkout import check_out

    stores = Stores(console)
    row = stores.history.get(run)
    if action is not None:
        stores.history.find_action(run, action)
    if not row.tree:
        raise NotFound(
            f"The run {run} has no bundle",
            why="It ran from the working tree, like all scripts and runs with `--local`.",
        )
    folder = output or run
    number = check_out(stores.cache, Digest(row.tree), folder)
    if console.json:
        console.document(
            {"run": run, "digest": row.tree, "folder": os.path.abspath(folder), "files": number}
        )
    else:
        console.print(f"{plural(number, 'file')} written to {folder}; tree {row.tree}")
