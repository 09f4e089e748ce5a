"""Options that several commands take, and the parsing of their values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flyte_build.bundler.copy_style import COPY_STYLES
from flyte_build.errors import NotFound, UsageError
from flyte_build.settings import table
from flyte_build.settings.configuration import Configuration

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from flyte_build.ops.session import Session
    from flyte_build.runner.result import Phase
    from flyte_build.settings.settings import Settings
    from flyte_build.workspace.workspace import Workspace

    from .console import Console

F = TypeVar("F", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
_OFFERED = 100  # Maximum number of runs or actions offered as completions.


def of_a_new_run(command: F) -> F:
    """Add the options of every command that starts a run."""
    follow = "Stream the task's output (always on)."
    for option in (
        click.option("-f", "--follow", is_flag=True, expose_value=False, help=follow),
        click.option("--label", multiple=True, metavar="K=V", help="Label to find the run by."),
        click.option(
            "-e",
            "--env",
            multiple=True,
            metavar="K=V",
            help="Environment variable for the task.",
        ),
        click.option("--name", help="Name of the run (default: generated).", callback=_name),
    ):
        command = option(command)
    return command


def of_a_bundle(command: F) -> F:
    """Add the options of commands that bundle a file's code: `copy_style`, `root_dir`."""
    styles = "Selection of the project's files for the bundle (setting: run.copy_style)."
    for option in (
        click.option(
            "--root-dir",
            type=click.Path(),
            help="Project root (default: the nearest one at or above FILE).",
        ),
        click.option("--copy-style", type=click.Choice(COPY_STYLES), help=styles),
    ):
        command = option(command)
    return command


def of_a_source(command: F) -> F:
    """Add the options of commands that read from repositories: `registry`, `cache_read`."""
    for option in (
        click.option(
            "--cache-read",
            multiple=True,
            metavar="REPOSITORY",
            help="Repository of the shared cache to read from (setting: cache.read).",
        ),
        click.option(
            "--registry",
            metavar="REPOSITORY",
            help="Repository to read from and publish to (setting: registry).",
        ),
    ):
        command = option(command)
    return command


def of_publishing(command: F) -> F:
    """Add the option of commands that write to a repository: `cache_write`."""
    text = "Repository of the shared cache to publish to (setting: cache.write)."
    return click.option("--cache-write", metavar="REPOSITORY", help=text)(command)


def of_a_registry(command: F) -> F:
    """Add the options of `of_a_source` and `of_publishing`."""
    return of_a_source(of_publishing(command))


def of_images(command: F) -> F:
    """Add the option that sets image references: `image`, for `images_of`."""
    text = (
        "Image for `Image.from_ref_name(NAME)` (setting: image.image_refs); without NAME, for"
        " environments that declare none."
    )
    return click.option("--image", multiple=True, metavar="[NAME=]URI", help=text)(command)


def of_pins(command: F) -> F:
    """Add the options of commands that prepare images: `image` and `locked`, for `pinned`."""
    text = "Fail (exit code 3) unless flyte.lock pins everything (setting: locked)."
    return of_images(click.option("--locked", is_flag=True, help=text)(command))


def images_of(config: Configuration, texts: Iterable[str]) -> dict[str, str]:
    """Return image references by name: the configured ones, then those of `--image`.

    The reference for environments that declare no image is named `default`. Raises `UsageError`.
    """
    configured = config[table.IMAGE_REFS]
    found = dict(configured)
    for text in texts:
        name, equals, uri = text.rpartition("=")
        if uri.split() != [uri] or bool(name) != bool(equals):
            raise UsageError(
                f"--image {text!r} is not an image",
                why="The value is URI or NAME=URI.",
                hint="For example: --image base=python:3.12-slim",
            )
        found[name or "default"] = uri
    return found


def pinned(config: Configuration, image: Iterable[str], locked: bool) -> dict[str, Any]:
    """Return the settings for the options of `of_pins`."""
    return {"images": images_of(config, image), "locked": locked or None}


def of_a_deployment(command: F) -> F:
    """Add the options that locate deployments: `project`, `domain`, those of `of_a_source`."""
    for option in (
        click.option("-d", "--domain", help="Domain of the deployment (setting: task.domain)."),
        click.option("-p", "--project", help="Project of the deployment (setting: task.project)."),
        of_a_source,
    ):
        command = option(command)
    return command


def with_registries(
    config: Configuration,
    registry: str | None,
    cache_read: tuple[str, ...],
    cache_write: str | None = None,
) -> Configuration:
    """Return `config` with the values of `of_a_registry`. Raises `UsageError`."""
    reads = json.dumps(cache_read) if cache_read else None
    return config.override(
        {table.SHARED: registry, table.CACHE_READ: reads, table.CACHE_WRITE: cache_write}
    )


def settings_of_each(
    console: Console, workspaces: Iterable[Workspace], settings: Callable[[Configuration], Settings]
) -> list[tuple[Workspace, Settings]]:
    """Return each workspace with the `settings` of its own project's configuration."""
    roots: dict[str, Settings] = {}
    found = []
    for workspace in workspaces:
        if workspace.root not in roots:
            roots[workspace.root] = settings(console.configuration(workspace.root))
        found.append((workspace, roots[workspace.root]))
    return found


def session_of(console: Console, options: Mapping[str, Any]) -> Session:
    """Return the session of a command about deployments, which takes no file.

    Its settings are the current directory's, with the values of `of_a_deployment`.
    """
    from flyte_build.ops.session import Session
    from flyte_build.ops.stores import Stores
    from flyte_build.settings.settings import Settings
    from flyte_build.workspace.workspace import root_here

    names = ("registry", "cache_read", "cache_write")
    registries = {name: options[name] for name in names if name in options}
    config = with_registries(console.configuration(root_here()), **registries)
    return Session(
        Settings.configured(config, project=options["project"], domain=options["domain"]),
        Stores(console),
    )


def _name(ctx: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    if name and not _NAME.match(name):
        raise UsageError(
            f"--name {name!r} is not a valid name",
            why=(
                "A name has at most 100 letters, digits, `_`, `.` and `-`, and begins with a letter"
                " or digit."
            ),
            hint="For example: nightly-1",
        )
    return name


def given_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given on the command line: neither None nor False."""
    return {
        name: value for name, value in options.items() if value is not None and value is not False
    }


def one_word(ctx: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Check that an option's value is one word (a callback). Raises `click.BadParameter`."""
    if text is not None and text.split() != [text]:
        raise click.BadParameter(
            f"{text!r} is not one word. For example: {parameter.opts[-1]} default"
        )
    return text


def runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a run: return the newest, each with its task and phase."""
    return _completions(incomplete)


def runs_under_way(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a run that has not ended."""
    return _completions(incomplete, "queued", "running")


def actions(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of an action of the run that the command line names."""
    from click.shell_completion import CompletionItem

    from flyte_build.ops.stores import Stores
    from flyte_build.runner.reporter import RunReporter

    try:
        rows = Stores(RunReporter()).history.actions(ctx.params["run"])
    except NotFound:
        return []
    found = (row for row in rows if row.name.startswith(incomplete))
    return [
        CompletionItem(row.name, help=f"{row.task} {row.phase}") for row in islice(found, _OFFERED)
    ]


def _completions(incomplete: str, *phases: Phase) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from flyte_build.ops.stores import Stores
    from flyte_build.runner.history.rows import Filter
    from flyte_build.runner.reporter import RunReporter

    rows = Stores(RunReporter()).history.list(_OFFERED, Filter(phases=phases))
    return [
        CompletionItem(row.name, help=f"{row.task} {row.phase}")
        for row in rows
        if row.name.startswith(incomplete)
    ]


def pairs(option: str, texts: Iterable[str], example: str) -> dict[str, str]:
    """Parse `NAME=VALUE` strings.

    Raises `UsageError`. Its message never quotes a value, since that may be a secret.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(
                f"{option} {name or '=...'} has no value",
                why="The value is NAME=VALUE.",
                hint=f"For example: {option} {example}",
            )
        found[name] = value
    return found


def moment(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Parse an option's time, and return it in seconds since the epoch (a callback).

    It is ISO 8601, `now`, `today`, or `now - P1D`; local time without an offset. Raises
    `click.BadParameter`.
    """
    from flyte_build.text.units import parse_datetime

    try:
        return None if text is None else parse_datetime(text).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is not a time. For example: 2026-05-01T08:00:00Z, 2026-05-01, today, 'now -"
            " P1D'."
        ) from None
