"""`flyte cache`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from flyte_build.attempts import Settings, Stores
from flyte_build.config import settings
from flyte_build.config.settings import CopyStyle
from flyte_build.project import locate
from flyte_build.running import Runner

from .console import Console, Quiet, node_json
from .options import of_a_bundle


@click.group()
def cache() -> None:
    """The cache on this machine."""


@cache.command("why")
@of_a_bundle
@click.argument("file", metavar="FILE", type=click.Path())
@click.argument("task", metavar="[TASK]", required=False)
@click.pass_obj
def why(console: Console, copy_style: CopyStyle | None, root_dir: str | None, file: str, task: str | None) -> None:
    """Say what `flyte run FILE` would prepare, and what changed since the last time. Prepares nothing."""
    stores = Stores(console)
    project = locate(file, root_dir)
    chosen = Settings.configured(console.configuration(project.root), copy_style=copy_style, version="-")
    runner = Runner(project, chosen, stores, Quiet(console), dry=True)
    with stores.cache.preparing():
        runner.discover()
        if task is not None:
            runner.preparation.discovery.task(task)
        runner.preparation.resolve()
    outcomes = runner.preparation.outcomes
    if console.json:
        console.document({"nodes": [node_json(outcome) for outcome in outcomes]})
        return
    for outcome in outcomes:
        state = console.style(f"{outcome.state:8}", fg="green" if outcome.state == "cached" else "cyan")
        console.print(f"{state} {outcome.node.kind:10} {outcome.node.name}" + (f"  ({outcome.why})" if outcome.why else ""))


@cache.command("stats")
@click.pass_obj
def stats(console: Console) -> None:
    """Say where the cache is, what it holds, and when it was last collected."""
    from flyte_build.housekeeping import last

    opened = Stores(console).cache
    found, collected = opened.statistics(), last(opened)
    if console.json:
        console.document({**found, "collected": collected})
        return
    for name, value in found.items():
        console.print(f"{name:13} {value:,}" if isinstance(value, int) else f"{name:13} {value}")
    console.print(f"{'collected':13} {_collected(collected)}")


def _collected(last: Mapping[str, Any] | None) -> str:
    if last is None:
        return "not yet"
    if last["error"]:
        return f"{last['ended']}, without success: {last['error']}"
    who = "by itself" if last["by"] == "itself" else "by `flyte cache gc`"
    rest = "" if last["complete"] else "; there was no time for all"
    return f"{last['ended']}, {who}: {last['removed']:,} things removed, {last['bytes']:,} bytes{rest}"


@cache.command("verify")
@click.pass_obj
def verify(console: Console) -> None:
    """Read everything that is stored; what is bad is put aside, and is made again when it is needed."""
    from flyte_build.bundler import extraction
    from flyte_build.cas.verification import verify_blobs

    stores = Stores(console)
    with stores.cache.preparing():
        checked, bad = verify_blobs(stores.cache, console.progress)
        extractions, changed = extraction.verify(stores.cache)
    bad += changed
    if console.json:
        console.document({"checked": checked + extractions, "bad": [vars(each) for each in bad]})
    else:
        for each in bad:
            console.print(f"{console.style('bad', fg='red')} {each.digest}: {each.what}")
        console.print(f"{checked:,} blobs and {extractions:,} extractions checked; {len(bad)} were bad, none is left bad")
    if any(not each.repaired for each in bad):
        raise click.exceptions.Exit(3)


@cache.command("gc")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--keep", metavar="TIME", help="Keep what was used within this time; 0s removes all that has no root (setting: cache.keep).")
@click.option(
    "--max-size", metavar="SIZE", help="Give up what was used least recently until the cache is no larger (setting: cache.max_size)."
)
@click.option("--min-free", metavar="SIZE", help="The same while the disk has less free space (settings: cache.min_free, cache.min_size).")
@click.pass_obj
def gc(console: Console, dry_run: bool, keep: str | None, max_size: str | None, min_free: str | None) -> None:
    """Remove what no running task and no recent use needs."""
    from flyte_build.cas.gc import collect
    from flyte_build.housekeeping import note, space

    config = console.configuration(os.path.realpath(os.getcwd()))
    config = config.override({settings.KEEP: keep, settings.MAX_SIZE: max_size, settings.MIN_FREE: min_free})
    opened = Stores(console).cache
    collection = collect(opened, config[settings.KEEP], dry_run, space(config))
    if not dry_run:
        note(opened, collection, "command")
    if collection.over:
        console.said(f"The cache is still {collection.over:,} bytes above its limit: running tasks need them.")
    if collection.lacking:
        console.said(
            f"The disk has still {collection.lacking:,} bytes less free space than it should: something else fills it, "
            "or what is left is kept for cache.min_size."
        )
    if console.json:
        removed = [vars(item) for item in collection.removed]
        counts = {"bytes": collection.bytes, "kept": collection.kept, "over": collection.over, "lacking": collection.lacking}
        console.document({"removed": removed, **counts})
        return
    for item in collection.removed[:20]:
        console.note(f"  {item.digest}  {item.size:,} bytes  {item.why}")
    if len(collection.removed) > 20:
        console.note(f"  ... and {len(collection.removed) - 20:,} more")
    word = "would be removed" if dry_run else "removed"
    console.print(f"{len(collection.removed):,} things {word}, {collection.bytes:,} bytes; {collection.kept:,} blobs kept")
