"""`flyte cache pull` and `flyte cache push`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import click

from flyte_build.bundler.copy_style import CopyStyle
from flyte_build.ops.exchange import Exchange, Item
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.settings.settings import Settings
from flyte_build.workspace.workspace import Workspace, given_root, locate, root_here

from .console import Console, Quiet
from .options import of_a_bundle, of_a_registry, of_a_source, with_registries


@click.command()
@of_a_bundle
@of_a_source
@click.argument("files", metavar="[FILE]...", type=click.Path(), nargs=-1)
@click.pass_obj
def pull(console: Console, /, files: tuple[str, ...], **options: Any) -> None:
    """Fetch what each FILE needs from the shared cache, without building anything.

    Without FILE, fetch everything that this project has published. Fails (exit code 3) if anything
    that a FILE needs is missing.
    """
    exchanges, stores = _exchanges(console, files, **options)
    _report(
        console,
        chain(
            *(each.pull(workspaces) if files else each.pull_all() for each, workspaces in exchanges)
        ),
        stores,
    )


@click.command()
@of_a_bundle
@of_a_registry
@click.argument("files", metavar="[FILE]...", type=click.Path(), nargs=-1)
@click.pass_obj
def push(console: Console, /, files: tuple[str, ...], **options: Any) -> None:
    """Publish what each FILE needs to the shared cache, without building anything.

    Without FILE, publish everything on this machine that is usable on others. Fails (exit code 3)
    if anything is missing, or could not be published.
    """
    exchanges, stores = _exchanges(console, files, **options)
    _report(
        console,
        chain(
            *(each.push(workspaces) if files else each.push_all() for each, workspaces in exchanges)
        ),
        stores,
    )


def _exchanges(
    console: Console,
    files: tuple[str, ...],
    *,
    copy_style: CopyStyle | None,
    root_dir: str | None,
    **registries: Any,
) -> tuple[list[tuple[Exchange, list[Workspace]]], Stores]:
    """Return an exchange for each project that the files belong to, with its files.

    Each exchange has its own project's settings. Without files, the project is the one at
    `root_dir`, or the current directory's.
    """
    stores = Stores(Quiet(console))
    of_root: dict[str, list[Workspace]] = (
        {} if files else {given_root(root_dir) if root_dir else root_here(): []}
    )
    for file in dict.fromkeys(files):
        workspace = locate(file, root_dir)
        of_root.setdefault(workspace.root, []).append(workspace)
    exchanges = []
    for root, workspaces in of_root.items():
        config = with_registries(console.configuration(root), **registries)
        settings = Settings.configured(config, copy_style=copy_style, version="-")
        if not (settings.registries.reads or settings.registries.write):
            console.note("No registry is configured: only the store on this machine is used.")
        exchanges.append((Exchange(Session(settings, stores)), workspaces))
    return exchanges, stores


def _report(console: Console, items: Iterator[Item], stores: Stores) -> None:
    found = list(items)
    if console.json:
        console.document(
            {"items": [vars(item) for item in found], "counters": stores.counters.snapshot()}
        )
    else:
        console.table(
            ("STATE", "KIND", "KEY", "FILE", "REPOSITORY"),
            [(i.state, i.kind, i.key[7:19], i.name, i.place) for i in found],
        )
    if any(item.state in ("missing", "unpublished") for item in found):
        raise click.exceptions.Exit(3)
