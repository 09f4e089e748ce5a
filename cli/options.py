"""Options that more than one command takes, and what their texts mean."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flyte_build.bundler.copy_style import COPY_STYLES
from flyte_build.errors import UsageError
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
_OFFERED = 100  # So many runs, at most, are offered as completions.


def of_a_new_run(command: F) -> F:
    """Add the options that every command takes which begins a run."""
    follow = "Show what the task prints as it comes. It is shown in any case."
    for option in (
        click.option("-f", "--follow", is_flag=True, expose_value=False, help=follow),
        click.option("--label", multiple=True, metavar="K=V", help="A label, to find the run by."),
        click.option(
            "-e",
            "--env",
            multiple=True,
            metavar="K=V",
            help="An environment variable for the task.",
        ),
        click.option("--name", help="The run's name; made if none is given.", callback=_name),
    ):
        command = option(command)
    return command


def of_a_bundle(command: F) -> F:
    """Add the options that every command takes which looks at what a file needs: `copy_style` and
    `root_dir`.
    """
    styles = "What of the project goes into the bundle (setting: run.copy_style)."
    for option in (
        click.option(
            "--root-dir",
            type=click.Path(),
            help="The project's root (default: the nearest marked directory at or above FILE).",
        ),
        click.option("--copy-style", type=click.Choice(COPY_STYLES), help=styles),
    ):
        command = option(command)
    return command


def of_a_source(command: F) -> F:
    """Add the options of every command that reads from repositories: `registry`, `cache_read`."""
    for option in (
        click.option(
            "--cache-read",
            multiple=True,
            metavar="REPOSITORY",
            help="Where to look for what others have made (setting: cache.read).",
        ),
        click.option(
            "--registry",
            metavar="REPOSITORY",
            help="The repository to read from and publish to (setting: registry).",
        ),
    ):
        command = option(command)
    return command


def of_publishing(command: F) -> F:
    """Add the option of every command that writes to a repository: `cache_write`."""
    text = "Where to publish what is made (setting: cache.write)."
    return click.option("--cache-write", metavar="REPOSITORY", help=text)(command)


def of_a_registry(command: F) -> F:
    """Add the options of `of_a_source` and of `of_publishing`."""
    return of_a_source(of_publishing(command))


def of_images(command: F) -> F:
    """Add the option that gives images: `image`, for `images_of`."""
    text = (
        "The image under NAME (`Image.from_ref_name`; setting: image.image_refs); without NAME,"
        " that of environments which declare none."
    )
    return click.option("--image", multiple=True, metavar="[NAME=]URI", help=text)(command)


def of_pins(command: F) -> F:
    """Add the options of commands that prepare images: `image` and `locked`, for `pinned`."""
    text = "Resolve nothing: fail (exit code 3) if flyte.lock does not pin all (setting: locked)."
    return of_images(click.option("--locked", is_flag=True, help=text)(command))


def images_of(config: Configuration, texts: Iterable[str]) -> dict[str, str]:
    """The references of images by name, as configured and as `--image` gives them. Raises
    `UsageError`.
    """
    configured = config[table.IMAGE_REFS]
    found = dict(configured)
    for text in texts:
        name, equals, uri = text.rpartition("=")
        if uri.split() != [uri] or bool(name) != bool(equals):
            raise UsageError(
                f"--image {text!r} is no image",
                why="It takes URI, or NAME=URI.",
                hint="For example: --image base=python:3.12-slim",
            )
        found[name or "default"] = uri
    return found


def pinned(config: Configuration, image: Iterable[str], locked: bool) -> dict[str, Any]:
    """The settings that `of_pins` gives."""
    return {"images": images_of(config, image), "locked": locked or None}


def of_a_deployment(command: F) -> F:
    """Add the options that say where deployments are: `project`, `domain`, and those of
    `of_a_source`.
    """
    for option in (
        click.option(
            "-d", "--domain", help="The domain that it is deployed in (setting: task.domain)."
        ),
        click.option(
            "-p", "--project", help="The project that it is deployed in (setting: task.project)."
        ),
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
    """The configuration with what `of_a_registry` was given. Raises `UsageError`."""
    reads = json.dumps(cache_read) if cache_read else None
    return config.override(
        {table.SHARED: registry, table.CACHE_READ: reads, table.CACHE_WRITE: cache_write}
    )


def settings_of_each(
    console: Console, workspaces: Iterable[Workspace], settings: Callable[[Configuration], Settings]
) -> list[tuple[Workspace, Settings]]:
    """Give each workspace with the `settings` that its own configuration comes to."""
    roots: dict[str, Settings] = {}
    found = []
    for workspace in workspaces:
        if workspace.root not in roots:
            roots[workspace.root] = settings(console.configuration(workspace.root))
        found.append((workspace, roots[workspace.root]))
    return found


def session_of(console: Console, options: Mapping[str, Any]) -> Session:
    """The session of a command about deployments, which needs no file: what `of_a_deployment` was
    given, and what is configured here.
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
            f"--name {name!r} is no name",
            why="It has at most 100 letters, digits, `_`, `.` and `-`.",
            hint="For example: nightly-1",
        )
    return name


def given_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some options that are given."""
    return {
        name: value for name, value in options.items() if value is not None and value is not False
    }


def one_word(ctx: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """An option's callback: a name without spaces."""
    if text is not None and text.split() != [text]:
        raise click.BadParameter(
            f"{text!r} is no name. It is one word, as in {parameter.opts[-1]} default."
        )
    return text


def runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The completions of a run's name: the newest runs, each with its task and phase."""
    return _completions(incomplete)


def runs_under_way(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The same of those that have not ended."""
    return _completions(incomplete, "queued", "running")


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
    """What `NAME=VALUE` texts say. Raises `UsageError`; a value is in no message, since it may be a
    secret.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(
                f"{option} {name or '=...'} has no value",
                why="It takes NAME=VALUE.",
                hint=f"For example: {option} {example}",
            )
        found[name] = value
    return found


def moment(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """An option's callback: the seconds since the epoch of ISO 8601, `now`, `today`, `now - P1D`;
    without an offset it is local time.
    """
    from flyte_build.text.units import parse_datetime

    try:
        return None if text is None else parse_datetime(text).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no time. For example: 2026-05-01T08:00:00Z, 2026-05-01, today, 'now -"
            " P1D'."
        ) from None
