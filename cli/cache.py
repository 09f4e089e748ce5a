"""`flyte cache`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from flyte_build.bundler.copy_style import CopyStyle
from flyte_build.errors import NotFound, UsageError
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.session import Session
from flyte_build.ops.sharing import Sharing
from flyte_build.ops.stores import Stores
from flyte_build.settings import table
from flyte_build.settings.configuration import Configuration
from flyte_build.settings.registries import Registries
from flyte_build.settings.settings import Settings
from flyte_build.text.units import rounded_size
from flyte_build.text.wording import plural
from flyte_build.workspace.workspace import locate, root_here

from .console import Console, Quiet, node_json
from .exchange import pull, push
from .group import Group
from .options import of_a_bundle, of_a_registry, of_a_source, with_registries
from .warm import warm

_GROUPS = 20  # Maximum number of printed lines about removed items.

if TYPE_CHECKING:
    from flyte_build.cas.gc import Collection


@click.group(cls=Group)
def cache() -> None:
    """Manage the cache of this machine, and the shared one."""


for command in (pull, push, warm):
    cache.add_command(command)


@cache.command("why")
@of_a_bundle
@of_a_source
@click.argument("file", metavar="FILE", type=click.Path())
@click.argument("task", metavar="[TASK]", required=False)
@click.pass_obj
def why(
    console: Console,
    /,
    copy_style: CopyStyle | None,
    root_dir: str | None,
    file: str,
    task: str | None,
    **registries: Any,
) -> None:
    """Show what `flyte run FILE` would prepare, and why.

    Prepares nothing. The reasons name what changed since the last time.
    """
    stores = Stores(Quiet(console))
    workspace = locate(file, root_dir)
    config = with_registries(console.configuration(workspace.root), **registries)
    chosen = Settings.configured(config, copy_style=copy_style, version="-")
    plan = FilePlan(Session(chosen, stores, read_only=True), workspace)
    with stores.cache.preparing():
        plan.discover()
        if task is not None:
            plan.discovery.task(task)
        plan.resolve(*plan.environments())
    outcomes = plan.outcomes
    if console.json:
        console.document({"nodes": [node_json(outcome) for outcome in outcomes]})
        return
    for outcome in outcomes:
        why = f"in {outcome.place}" if outcome.fetched else outcome.why
        about = f"{outcome.node.kind:10} {outcome.node.name}" + (f"  ({why})" if why else "")
        color = "green" if outcome.state == "cached" else "cyan"
        console.print(console.event(outcome.state, color, about))


@cache.command("stats")
@click.pass_obj
def stats(console: Console) -> None:
    """Show the location, contents and last garbage collection of the cache."""
    from flyte_build.ops.gc import last

    opened = Stores(console).cache
    found, collected = opened.statistics(), last(opened)
    if console.json:
        console.document({**found, "collected": collected})
        return
    for name, value in found.items():
        if isinstance(value, dict):
            for part, size in value.items():
                console.print(f"  {part:11} {size:,}")
        else:
            console.print(
                f"{name:13} {value:,}" if isinstance(value, int) else f"{name:13} {value}"
            )
    console.print(f"{'collected':13} {_collected(collected)}")


def _collected(last: Mapping[str, Any] | None) -> str:
    if last is None:
        return "never"
    if last["error"]:
        return f"{last['ended']}, failed: {last['error']}"
    who = "automatically" if last["by"] == "itself" else "by `flyte cache gc`"
    rest = "" if last["complete"] else "; time ran out before the end"
    return f"{last['ended']}, {who}: {rounded_size(last['bytes'])} removed{rest}"


@cache.command("verify")
@click.option(
    "--repair", is_flag=True, help="Fetch bad or missing data again, where a repository has it."
)
@of_a_source
@click.pass_obj
def verify(console: Console, /, repair: bool, **registries: Any) -> None:
    """Verify everything that is stored, and repair or remove what is bad.

    What is removed is rebuilt when it is needed. Fails (exit code 3) if anything bad remains.
    """
    from flyte_build.ops.verify import verify as verify_stores

    stores = Stores(console)
    sharing = _sharing(console, stores, registries) if repair else None
    checked, bad = verify_stores(stores, sharing.shared.restore if sharing else lambda record: "")
    if console.json:
        console.document({"checked": sum(checked.values()), "bad": [vars(each) for each in bad]})
    else:
        for each in bad:
            console.print(f"{console.style('bad', fg='red')} {each.digest}: {each.what}")
        counts = [plural(count, name.removesuffix("s")) for name, count in checked.items()]
        repaired = f"{len(bad)} bad, repaired or removed" if bad else "all are good"
        console.print(f"{', '.join(counts)} checked; {repaired}")
    if any(not each.repaired for each in bad):
        raise click.exceptions.Exit(3)


@cache.command("rm")
@click.option(
    "--remote", is_flag=True, help="Remove it from the repository that is written to, too."
)
@of_a_registry
@click.argument("key")
@click.pass_obj
def rm(console: Console, /, remote: bool, key: str, **registries: Any) -> None:
    """Remove the record of a node from the cache, so that the node is rebuilt.

    KEY is the node's key, or the first digits of it.
    """
    stores = Stores(console)
    start = "sha256:" + key.removeprefix("sha256:").lower()
    here = stores.cache.records.keys(start)
    shared = _sharing(console, stores, registries).shared if remote else None
    there = {record.key: record for record in shared.published(start)} if shared else {}
    found = sorted({*here, *there})
    if not found:
        raise NotFound(
            f"No record has the key {key}",
            hint="Find keys with `flyte -v run` or `flyte -of json cache why FILE`.",
        )
    if len(found) > 1:
        shown = ", ".join(each.short for each in found[:5])
        raise UsageError(f"{len(found)} keys begin with {key}", why=shown, hint="Give more digits.")
    with stores.cache.preparing():
        stores.cache.records.remove_all(here)
    if shared:
        for record in there.values():
            shared.remove(record)
    if console.json:
        console.document({"key": found[0], "removed": {"local": bool(here), "remote": bool(there)}})
    else:
        places = [
            place
            for place, is_gone in (("from this machine", here), ("from the repository", there))
            if is_gone
        ]
        console.print(f"{found[0]} was removed {' and '.join(places)}")


def _sharing(console: Console, stores: Stores, registries: Mapping[str, Any]) -> Sharing:
    """Return the sharing of the current directory's configuration, with the given options."""
    config = with_registries(console.configuration(root_here()), **registries)
    sharing = Session(Settings.configured(config), stores).sharing
    sharing.ask_again()
    return sharing


@cache.command("gc")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option(
    "--keep",
    metavar="TIME",
    help=(
        "Keep everything used within this time; 0s keeps only what is in use (setting: cache.keep)."
    ),
)
@click.option(
    "--max-size",
    metavar="SIZE",
    help=(
        "Evict the least recently used until the cache is at most this large (setting:"
        " cache.max_size)."
    ),
)
@click.option(
    "--min-free",
    metavar="SIZE",
    help="Evict while the disk has less free space (settings: cache.min_free, cache.min_size).",
)
@click.option(
    "--remote",
    is_flag=True,
    help="Collect the repository that is written to instead of this machine.",
)
@of_a_registry
@click.pass_obj
def gc(
    console: Console,
    /,
    dry_run: bool,
    keep: str | None,
    max_size: str | None,
    min_free: str | None,
    remote: bool = False,
    **registries: Any,
) -> None:
    """Remove everything that is neither needed by a running task nor recently used.

    With --remote: remove this project's records that have not been used within the keep time.
    Deployments, and what others have published, are kept.
    """
    from flyte_build.ops.gc import collect, note, space

    config = console.configuration(root_here())
    config = config.override({table.KEEP: keep, table.MAX_SIZE: max_size, table.MIN_FREE: min_free})
    if remote and (max_size or min_free):
        raise UsageError(
            "--max-size and --min-free cannot be used with --remote",
            why="They apply to this machine, not to a repository.",
            hint="Use --keep with --remote.",
        )
    if remote:
        _collect_remote(console, with_registries(config, **registries), dry_run)
        return
    stores = Stores(console)
    opened = stores.cache
    collection = collect(
        opened, stores.places.executed, config[table.KEEP], space(config), dry_run=dry_run
    )
    if not dry_run:
        note(opened, collection, "command")
    if collection.over:
        console.note(
            f"The cache is still {collection.over:,} bytes above its limit: running tasks need"
            " them."
        )
    if collection.lacking:
        console.note(
            f"The disk still has {collection.lacking:,} bytes less free space than it should:"
            " something else fills it, or the rest of the cache is kept for cache.min_size."
        )
    _report(console, collection, dry_run, "packs and layers")


def _collect_remote(console: Console, config: Configuration, dry_run: bool) -> None:
    from flyte_build.cas.registry.remote_gc import collect_records

    stores = Stores(console)
    registries = Registries.configured(config)
    # Without a registry, this is the machine's own store of deployments.
    place = registries.write or registries.of_deployments(stores.places)[0]
    collection = collect_records(
        stores.repositories.open(place), config[table.PROJECT], config[table.KEEP], dry_run
    )
    _report(console, collection, dry_run, "published records")


def _report(console: Console, collection: Collection, dry_run: bool, what: str) -> None:
    if console.json:
        removed = [vars(item) for item in collection.removed]
        counts = {
            "bytes": collection.bytes,
            "kept": collection.kept,
            "over": collection.over,
            "lacking": collection.lacking,
        }
        console.document({"removed": removed, **counts})
        return
    groups: dict[tuple[str, str], list[int]] = {}
    for item in collection.removed:
        groups.setdefault((item.what, item.why), []).append(item.size)
    for (noun, why), sizes in list(groups.items())[:_GROUPS]:
        console.print(f"{rounded_size(sum(sizes)):>9}  {len(sizes):,} {noun}: {why}")
    if len(groups) > _GROUPS:
        console.print(f"{'':9}  and {len(groups) - _GROUPS:,} more")
    verb = "would be removed" if dry_run else "removed"
    console.print(f"{rounded_size(collection.bytes)} {verb}; {collection.kept:,} {what} kept")
