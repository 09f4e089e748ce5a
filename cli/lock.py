"""`flyte lock`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from flyte_build.errors import UsageError
from flyte_build.ops.lock import Locked, Upgrade, lock_files
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.settings.settings import Settings
from flyte_build.workspace.task_files import task_files
from flyte_build.workspace.workspace import given_root, locate, root_here

from .console import Console, Quiet
from .options import images_of, of_images


@click.command()
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing; fail (exit code 3) if a pin is missing or unused.",
)
@click.option(
    "--upgrade",
    metavar="[NAME]",
    is_flag=False,
    flag_value="",
    multiple=True,
    help=(
        "Upgrade pins to what is available now: all except Python, or only the package or base NAME"
        " (or `python`)."
    ),
)
@click.option(
    "--root-dir",
    type=click.Path(),
    help="Project root (default: the nearest one at or above FILE).",
)
@of_images
@click.argument("files", metavar="[FILE]...", type=click.Path(), nargs=-1)
@click.pass_obj
def lock(
    console: Console,
    /,
    check: bool,
    upgrade: tuple[str, ...],
    root_dir: str | None,
    image: tuple[str, ...],
    files: tuple[str, ...],
) -> None:
    """Pin the contents of the images of each FILE in flyte.lock, at the project's root.

    Packages, base images and the version of Python are pinned. Existing pins change only with
    --upgrade. Without FILE, all files below the root that define tasks are locked, and unused pins
    are removed.
    """
    # `--upgrade FILE`: click takes the file for the name.
    files = (*files, *(name for name in upgrade if name.endswith(".py")))
    names = [name for name in upgrade if name and not name.endswith(".py")]
    if check and upgrade:
        raise UsageError("--check and --upgrade cannot be used together", hint="Omit one of them.")
    everything = not files
    root = given_root(root_dir) if root_dir else root_here()
    workspaces = [locate(file, root_dir) for file in files or task_files(root)]
    if everything and (own := [workspace for workspace in workspaces if workspace.root == root]):
        workspaces = own  # Projects below this one are locked separately.
    if not workspaces:
        raise UsageError(
            "No file below this directory imports flyte",
            hint="Change to the project's root, or set it with --root-dir.",
        )
    if len({workspace.root for workspace in workspaces}) > 1:
        raise UsageError(
            "The files belong to several projects",
            hint="Name the files of one project: each project has its own flyte.lock.",
        )
    config = console.configuration(workspaces[0].root)
    settings = Settings.configured(config, version="-", images=images_of(config, image))
    session = Session(settings, Stores(Quiet(console)))
    plans = [FilePlan(session, workspace) for workspace in workspaces]
    moved = Upgrade(everything=bool(upgrade) and not names, names=names)
    with session.cache.preparing():
        locked = lock_files(plans, everything=everything, check=check, upgrade=moved)
    _report(console, locked, check)
    if not locked.complete:
        raise click.exceptions.Exit(3)


def _report(console: Console, locked: Locked, check: bool) -> None:
    if console.json:
        document = {
            "path": locked.path,
            "changes": [vars(each) for each in locked.changes],
            "missing": locked.missing,
        }
        console.document(
            {**document, "unused": locked.unused, **({} if check else {"beside": locked.beside})}
        )
        return
    if locked.changes:
        rows: list[Sequence[str]] = [
            (each.name, each.old or "-", each.new or "-", _of(each.python, each.platform))
            for each in locked.changes
        ]
        console.table(("NAME", "FROM", "TO", "FOR"), rows)
    for sentence in locked.missing:
        console.line(f"{console.style('missing', fg='red')}  {sentence}", "error")
    for what in locked.unused:
        console.line(f"{console.style('unused', fg='red')}   {what}", "error")
    if not locked.complete:
        console.line("Run `flyte lock`, and commit flyte.lock.", "error")
    elif locked.beside:
        also = "also changed" if locked.changes else "keeps all versions; changed"
        console.line(f"{os.path.basename(locked.path)} {also}: {'; '.join(locked.beside)}")
    elif not locked.changes:
        console.line(
            f"{os.path.basename(locked.path)} {'is complete' if check else 'is unchanged'}"
        )


def _of(python: str, platform: str) -> str:
    return f"Python {python}, {platform}" if python else ""
