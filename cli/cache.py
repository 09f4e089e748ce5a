"""`flyte cache`."""

from __future__ import annotations

import click

from flyte_build.attempts import Settings, Stores
from flyte_build.config.settings import COPY_STYLES, CopyStyle
from flyte_build.errors import UsageError
from flyte_build.prepare import locate
from flyte_build.running import Runner

from .console import Console, node_json

_KEEP = "14 days"


@click.group()
def cache() -> None:
    """The cache on this machine."""


@cache.command("why")
@click.option("--copy-style", type=click.Choice(COPY_STYLES), help="What of the project goes into the bundle (setting: run.copy_style).")
@click.option("--root-dir", help="The project's root; the current folder if none is given.")
@click.argument("file", metavar="FILE")
@click.argument("task", metavar="[TASK]", required=False)
@click.pass_obj
def why(console: Console, copy_style: CopyStyle | None, root_dir: str | None, file: str, task: str | None) -> None:
    """Say what `flyte run FILE` would prepare, and what changed since the last time. Prepares nothing."""
    stores = Stores(console)
    project = locate(file, root_dir)
    settings = Settings.configured(console.configuration(project.root), copy_style=copy_style, version="-")
    runner = Runner(project, settings, stores, Quiet(console), dry=True)
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


class Quiet(Console):
    """Says what must be said, and nothing of nodes."""

    def __init__(self, console: Console) -> None:
        self.__dict__ = console.__dict__

    def resolved(self, outcome: object) -> None:
        """Nothing: the command prints all nodes itself."""


@cache.command("stats")
@click.pass_obj
def stats(console: Console) -> None:
    """Say where the cache is and what it holds."""
    stores = Stores(console)
    found = stores.cache.statistics()
    if console.json:
        console.document(found)
    else:
        console.print(
            "\n".join(f"{name:13} {value:,}" if isinstance(value, int) else f"{name:13} {value}" for name, value in found.items())
        )


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
@click.option("--keep", default=_KEEP, show_default=True, help="Keep what was used within this time; 0s removes all that has no root.")
@click.pass_obj
def gc(console: Console, dry_run: bool, keep: str) -> None:
    """Remove what no running task and no recent use needs."""
    from flyte_build.cas.gc import collect
    from flyte_build.texts import parse_timedelta

    try:
        seconds = parse_timedelta(keep).total_seconds()
    except (ValueError, OverflowError):
        raise UsageError(f"--keep {keep!r} is no duration", hint="For example: --keep 14d, --keep P2W, --keep 0s") from None
    if seconds < 0:
        raise UsageError(f"--keep {keep!r} is negative", hint="0s removes all that has no root.")
    collection = collect(Stores(console).cache, seconds, dry_run)
    if console.json:
        console.document({"removed": [vars(item) for item in collection.removed], "bytes": collection.bytes, "kept": collection.kept})
        return
    for item in collection.removed[:20]:
        console.note(f"  {item.digest}  {item.size:,} bytes  {item.why}")
    if len(collection.removed) > 20:
        console.note(f"  ... and {len(collection.removed) - 20:,} more")
    word = "would be removed" if dry_run else "removed"
    console.print(f"{len(collection.removed):,} things {word}, {collection.bytes:,} bytes; {collection.kept:,} blobs kept")
