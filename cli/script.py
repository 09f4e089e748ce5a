"""`flyte run python-script`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from flyte_build.declarations.resources import Resources
from flyte_build.errors import UsageError
from flyte_build.ops.run import run_script, script_inputs
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
    help="Arguments of the script, quoted as for a shell.",
)
@click.option(
    "--timeout", metavar="TIME", help="Maximum duration: 90s, '2 hours', PT1H30M, or seconds."
)
@click.option("--image", metavar="URI", help="Image to run in. Accepted, but has no effect yet.")
@click.option(
    "--packages",
    metavar="NAMES",
    help="Packages to install, separated by commas. Accepted, but has no effect yet.",
)
@click.option("--cpu", help="Number of CPUs. Accepted, but has no effect yet.")
@click.option("--memory", help="Amount of memory, such as 1Gi. Accepted, but has no effect yet.")
@click.option("--gpu", help="GPUs, such as 1 or A100:4. Accepted, but has no effect yet.")
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
    """Run a plain Python script as a recorded run, with a log, a phase and an exit code.

    It runs like `python SCRIPT`: in the current directory, and without a bundle.
    """
    console, stores, settings = given
    try:
        arguments = shlex.split(extra_args)
    except ValueError as error:
        raise UsageError(
            f"Cannot split --extra-args {extra_args!r} into arguments",
            why=f"{error}.",
            hint="For example: --extra-args '--n 3'",
        ) from None
    inputs = script_inputs(script, arguments)
    settings = settings.change(options={**settings.run.options, **given_of(options)})
    # Raises `UsageError` for invalid values.
    Resources(**{name: settings.run.options.get(name) for name in ("cpu", "memory", "gpu")})
    run_and_report_script(
        console, Session(settings, stores), inputs, None if timeout is None else _seconds(timeout)
    )


def run_and_report_script(
    console: Console, session: Session, inputs: Wires, timeout: float | None
) -> None:
    """Run a script and report its result; with a recorded run's inputs, it runs again."""
    report(console, run_script(session, inputs, timeout, console.take_spare()), session.stores)


def _seconds(text: str) -> float:
    from flyte_build.text.units import parse_timedelta

    try:
        seconds = parse_timedelta(text).total_seconds()
    except (ValueError, OverflowError):
        seconds = 0.0
    if seconds <= 0:
        raise UsageError(
            f"--timeout {text!r} is not a positive duration",
            hint="For example: --timeout 90s, --timeout '2 hours', --timeout PT1H30M",
        )
    return seconds
