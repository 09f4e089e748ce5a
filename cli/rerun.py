"""`flyte rerun`."""

from __future__ import annotations

from typing import Any

import click

from flyte_build import script
from flyte_build.attempts import Settings, Stores
from flyte_build.errors import UsageError
from flyte_build.interface import Interface
from flyte_build.prepare import locate
from flyte_build.running import Runner, handle_termination, with_recorded

from .console import Console
from .ending import run_and_report
from .inputs import Inputs
from .options import of_a_new_run, pairs


@click.command(context_settings={"allow_interspersed_args": False})
@of_a_new_run
@click.argument("run", metavar="RUN")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED, metavar="[INPUTS]...")
@click.pass_obj
def rerun(console: Console, name: str | None, env: tuple[str, ...], label: tuple[str, ...], run: str, rest: tuple[str, ...]) -> None:
    """Run the task of an earlier run again: the same file as it is now, with the inputs of then.

    Options of `rerun` stand before RUN; inputs that shall be others than those of then stand after it. `flyte rerun RUN --help` shows
    them. Environment variables that were given with `-e` are not kept, and must be given again.
    """
    handle_termination()
    stores = Stores(console)
    stores.history.get(run)
    recorded = stores.history.action(run)
    settings = Settings(
        project=recorded["project"],
        domain=recorded["domain"],
        name=name,
        version=recorded["version"] if recorded["copy_style"] == "none" else "",
        copy_style=recorded["copy_style"],
        env=pairs("--env", env, "MODE=fast"),
        labels=pairs("--label", label, "team=blue"),
        engine="auto" if recorded["code"] else "local",
    )
    if recorded["module"] == script.__name__:
        _rerun_script(console, stores, settings, run, recorded, rest)
        return
    runner = Runner(locate(f"{recorded['root']}/{recorded['file']}", recorded["root"]), settings, stores, console)
    task = runner.discover().task(recorded["variable"])
    interface = with_recorded(Interface.from_document(task["interface"]), recorded["inputs"])
    changed = Inputs(recorded["variable"], interface).parse_inputs(f"flyte rerun {run}", list(rest))
    if missing := set(recorded["env"]) - set(task["env_vars"]) - set(settings.env):
        console.said(f"The run {run} was given {', '.join(sorted(missing))} with `-e`; values are not kept, so give them again if need be.")
    run_and_report(console, runner, recorded["variable"], {**recorded["inputs"], **changed}, explain=False)


def _rerun_script(console: Console, stores: Stores, settings: Settings, run: str, recorded: dict[str, Any], rest: tuple[str, ...]) -> None:
    from .script import run_script

    if rest:
        raise UsageError(f"The run {run} is of a script, which has no inputs", hint="`flyte run python-script` takes other arguments.")
    run_script(console, stores, settings, recorded["inputs"], recorded["timeout"], recorded["options"])
