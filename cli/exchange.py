"""`flyte cache pull` and `flyte cache push`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from flyte_build.attempts import Settings
from flyte_build.config.settings import CopyStyle
from flyte_build.exchange import Exchange, Item
from flyte_build.project import Project, locate
from flyte_build.stores import Stores

from .console import Console, Quiet
from .options import of_a_bundle, of_a_registry, with_registries


@click.command()
@of_a_bundle
@of_a_registry
@click.argument("files", metavar="[FILE]...", type=click.Path(), nargs=-1)
@click.pass_obj
def pull(console: Console, /, files: tuple[str, ...], **options: Any) -> None:
    """Fetch what each FILE needs and others have made; without FILE, all that this project has published. Makes nothing.

    Fails (exit code 3) if something that a FILE needs is nowhere.
    """
    exchange, projects, stores = _exchange(console, files, **options)
    _report(console, exchange.pull(projects) if files else exchange.pull_all(), stores)


@click.command()
@of_a_bundle
@of_a_registry
@click.argument("files", metavar="[FILE]...", type=click.Path(), nargs=-1)
@click.pass_obj
def push(console: Console, /, files: tuple[str, ...], **options: Any) -> None:
    """Publish what each FILE needs and is here; without FILE, all that is here and good on other machines. Makes nothing.

    Fails (exit code 3) if something is not here, or could not be published.
    """
    exchange, projects, stores = _exchange(console, files, **options)
    _report(console, exchange.push(projects) if files else exchange.push_all(), stores)


def _exchange(
    console: Console, files: tuple[str, ...], *, copy_style: CopyStyle | None, root_dir: str | None, **registries: Any
) -> tuple[Exchange, list[Project], Stores]:
    projects = [locate(file, root_dir) for file in dict.fromkeys(files)]
    root = projects[0].root if projects else os.path.realpath(root_dir or os.getcwd())
    config = with_registries(console.configuration(root), **registries)
    settings = Settings.configured(config, copy_style=copy_style, version="-")
    if not (settings.registries.reads or settings.registries.write):
        console.said("No registry is configured: the store on this machine is all there is.")
    stores = Stores(console)
    return Exchange(settings, stores, Quiet(console)), projects, stores


def _report(console: Console, items: Iterator[Item], stores: Stores) -> None:
    found = list(items)
    if console.json:
        console.document({"items": [vars(item) for item in found], "counters": stores.counters.snapshot()})
    else:
        console.table(("STATE", "KIND", "KEY", "FILE", "REPOSITORY"), [(i.state, i.kind, i.key[7:19], i.name, i.place) for i in found])
    if any(item.state in ("missing", "unpublished") for item in found):
        raise click.exceptions.Exit(3)
