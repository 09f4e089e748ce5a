"""`flyte cache warm`."""

from __future__ import annotations

from typing import Any

import click

from flyte_build.errors import UsageError
from flyte_build.graph.node import Outcome
from flyte_build.ops.stores import Stores
from flyte_build.ops.warm import Warmed
from flyte_build.ops.warm import warm as warm_files
from flyte_build.settings.configuration import Configuration
from flyte_build.settings.settings import Settings
from flyte_build.workspace.task_files import task_files
from flyte_build.workspace.workspace import Workspace, given_root, locate, root_here

from .console import Console, Quiet, node_json
from .options import of_a_bundle, of_a_registry, of_pins, pinned, settings_of_each, with_registries

_COLUMNS = ("FILE", "WHAT", "STATE", "FROM", "WHY")


@click.command()
@click.option(
    "--check",
    is_flag=True,
    help="Change nothing; fail (exit code 3) if anything is missing.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Number of files to prepare at a time.",
)
@click.option(
    "--summary",
    metavar="FILE",
    type=click.Path(),
    help="Append a Markdown summary to FILE, for the page of a CI job.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Prepare for all files below the project root that define tasks.",
)
@of_a_bundle
@of_a_registry
@of_pins
@click.argument("files", metavar="[FILE]...", type=click.Path(), nargs=-1)
@click.pass_obj
def warm(
    console: Console,
    /,
    check: bool,
    jobs: int,
    summary: str | None,
    everything: bool,
    **options: Any,
) -> None:
    """Prepare and publish everything that the tasks of each FILE need, without running them."""
    workspaces = _workspaces(options.pop("files"), everything, options.pop("root_dir"))
    copy_style, image, locked = (options.pop(name) for name in ("copy_style", "image", "locked"))

    def settings(config: Configuration) -> Settings:
        config = with_registries(config, **options)
        return Settings.configured(
            config, copy_style=copy_style, version="-", **pinned(config, image, locked)
        )

    targets = settings_of_each(console, workspaces, settings)
    publishes = any(each.registries.write for _, each in targets)
    stores, warmed = Stores(Quiet(console)), []
    for each in warm_files(targets, stores, check=check, jobs=jobs):
        if each.holds_tasks or not everything:
            warmed.append(each)
            _note(console, each, check)
    if summary is not None:
        _append(summary, _markdown(warmed, check))
    if console.json:
        nodes = [
            {
                "file": each.file,
                **node_json(outcome),
                "published": outcome.key not in each.unpublished if publishes else None,
            }
            for each in warmed
            for outcome in each.outcomes
        ]
        errors = [{"file": each.file, "message": each.error.what} for each in warmed if each.error]
        console.document({"nodes": nodes, "errors": errors, "counters": stores.counters.snapshot()})
    else:
        console.table(_COLUMNS, _rows(warmed))
    if not all(each.complete for each in warmed):
        raise click.exceptions.Exit(3)


def _workspaces(files: tuple[str, ...], everything: bool, root_dir: str | None) -> list[Workspace]:
    if everything == bool(files):
        raise UsageError(
            "`flyte cache warm` requires either files or --all",
            hint="For example: flyte cache warm --all",
        )
    if everything:
        files = tuple(task_files(given_root(root_dir) if root_dir else root_here()))
        if not files:
            raise UsageError(
                "No file below this directory imports flyte",
                hint="Change to the project's root, or set it with --root-dir.",
            )
    workspaces = [locate(file, root_dir) for file in files]
    return list({(workspace.root, workspace.file): workspace for workspace in workspaces}.values())


def _append(path: str, text: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as page:
            page.write(text)
    except OSError as error:
        raise UsageError(
            f"Cannot write the summary to {path}", why=error.strerror or str(error)
        ) from None


def _note(console: Console, warmed: Warmed, check: bool) -> None:
    """Print a line for a finished file, while others are still in progress."""
    if warmed.error is not None:
        console.line(console.event("failed", "red", f"{warmed.file}: {warmed.error}"), "error")
    else:
        word = "ready" if warmed.complete else "missing" if check else "unpublished"
        console.line(console.event(word, "green" if warmed.complete else "red", warmed.file))


def _rows(warmed: list[Warmed]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for each in warmed:
        rows += [
            (each.file, *_cells(outcome, each)) for outcome in each.outcomes if outcome.node.shared
        ]
        if each.error:
            rows.append((each.file, "", "failed", "", each.error.what))
    return rows


def _cells(outcome: Outcome, warmed: Warmed) -> tuple[str, str, str, str]:
    state = (
        f"{outcome.state}, not published" if outcome.key in warmed.unpublished else outcome.state
    )
    return outcome.node.kind, state, outcome.place if outcome.state == "cached" else "", outcome.why


def _markdown(warmed: list[Warmed], check: bool) -> str:
    """Return a summary in Markdown (GitHub Flavored Markdown, "Tables")."""
    ready = sum(each.complete for each in warmed)
    lines = [
        f"### flyte cache {'check' if check else 'warm'}: {ready} of {len(warmed)} files ready",
        "",
    ]
    lines += [f"| {' | '.join(_COLUMNS).lower()} |", "|" + " --- |" * len(_COLUMNS)]
    lines += [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
        for row in _rows(warmed)
    ]
    return "\n".join([*lines, "", ""])
