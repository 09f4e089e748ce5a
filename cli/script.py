"""`flyte run python-script`."""

from __future__ import annotations

import os
import shlex
from typing import Any

import click

from flyte_build.declarations.resources import Resources
from flyte_build.errors import UsageError
from flyte_build.ops.run import run_script
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.settings.settings import Settings
from flyte_build.values.type import Wires

from .console import Console
from .options import given_of
from .report import report


@click.command("python-script")
@click.option(
    "--extra-args",
    default="",
    metavar="ARGS",
    help="The script's own arguments, quoted as a shell wants it.",
)
@click.option(
    "--timeout", metavar="TIME", help="How long it may run: 90s, '2 hours', PT1H30M, seconds."
)
@click.option("--image", metavar="URI", help="An image to run in. Kept, and not acted on yet.")
@click.option(
    "--packages",
    metavar="NAMES",
    help="Packages that it needs, with commas between them. Kept, and not acted on yet.",
)
@click.option("--cpu", help="How many CPUs it needs. Kept, and not acted on yet.")
@click.option("--memory", help="How much memory it needs, as 1Gi. Kept, and not acted on yet.")
@click.option("--gpu", help="Which GPUs it needs, as 1 or A100:4. Kept, and not acted on yet.")
@click.argument("script", metavar="SCRIPT", type=click.Path())
@click.pass_obj
def python_script(
    given: tuple[Console, Stores, Settings],
    /,
    extra_args: str,
    timeout: str | None,
    script: str,
    **options: Any,
) -> None:
    """Run a plain Python script as a run, with a log, a phase and an exit code of its own.

    It runs as `python SCRIPT` does: in the current directory, from where it stands. It is not
    bundled.
    """
    console, stores, settings = given
    try:
        arguments = shlex.split(extra_args)
    except ValueError as error:
        raise UsageError(
            f"--extra-args {extra_args!r} cannot be split",
            why=f"{error}.",
            hint="For example: --extra-args '--n 3'",
        ) from None
    inputs = {"path": os.path.realpath(script), "arguments": arguments, "folder": os.getcwd()}
    settings = settings.change(options={**settings.run.options, **given_of(options)})
    # Refuses what makes no sense.
    Resources(**{name: settings.run.options.get(name) for name in ("cpu", "memory", "gpu")})
    run_and_report_script(
        console, Session(settings, stores), inputs, None if timeout is None else _seconds(timeout)
    )


def run_and_report_script(
    console: Console, session: Session, inputs: Wires, timeout: float | None
) -> None:
    """Run a script and report how it ended; a script that was given before runs again by the same
    inputs and settings.
    """
    report(console, run_script(session, inputs, timeout, console.take_spare()), session.stores)


def _seconds(text: str) -> float:
    from flyte_build.text.units import parse_timedelta

    try:
        seconds = parse_timedelta(text).total_seconds()
    except (ValueError, OverflowError):
        seconds = 0.0
    if seconds <= 0:
        raise UsageError(
            f"--timeout {text!r} is no duration",
            hint="For example: --timeout 90s, --timeout '2 hours', --timeout PT1H30M",
        )
    return seconds
