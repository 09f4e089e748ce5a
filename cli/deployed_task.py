"""`flyte run deployed-task`."""

from __future__ import annotations

from typing import Any

import click

from flyte_build.declarations.interface import Interface
from flyte_build.errors import UsageError
from flyte_build.ops.deployed_task import DeployedTask, find_task
from flyte_build.ops.releases import Deployments
from flyte_build.ops.run_deployed import run_deployed
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.settings.settings import Settings
from flyte_build.settings.table import ENGINES
from flyte_build.text.wording import printable
from flyte_build.values.type import Wires

from .console import Console
from .inputs import Inputs
from .options import of_a_deployment, of_a_new_run, pairs, session_of
from .report import report


@click.command(
    "deployed-task",
    context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
)
@of_a_deployment
@of_a_new_run
@click.option(
    "--run-project",
    help="Project that the run belongs to (default: the deployment's).",
)
@click.option(
    "--run-domain",
    help="Domain that the run belongs to (default: the deployment's).",
)
@click.option(
    "--engine", type=click.Choice(ENGINES), help="Engine that runs the task (setting: run.engine)."
)
@click.option(
    "--inputs-file",
    metavar="FILE|-",
    type=click.Path(),
    help="Read inputs from a file; see `flyte run`.",
)
@click.argument("task", metavar="ENV.TASK[:VERSION|@DIGEST]")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED, metavar="[INPUTS]...")
@click.pass_obj
def deployed_task(
    given: tuple[Console, Stores, Settings],
    /,
    task: str,
    rest: tuple[str, ...],
    inputs_file: str | None,
    **options: Any,
) -> None:
    """Run a deployed task: its latest version, or the given version or digest.

    It needs neither its source files nor any preparation. Options go before the task's name, and
    its inputs after it; `flyte run deployed-task ENV.TASK --help` shows the inputs.
    """
    console, stores, settings = given
    settings = settings.change(engine=options["engine"])
    if settings.engine == "local":
        raise UsageError(
            "A deployed task runs in a process of its own",
            hint="Omit `--local` and `--engine local`.",
        )
    registries = settings.registries
    if options["registry"] is not None or options["cache_read"]:
        registries = session_of(console, options).settings.registries
    settings = settings.change(
        project=options["project"] or None,
        domain=options["domain"] or None,
        registries=registries,
        name=options["name"] or None,
        env={**settings.run.env, **pairs("--env", options["env"], "MODE=fast")},
        labels={**settings.run.labels, **pairs("--label", options["label"], "team=blue")},
    )
    found = find_task(Deployments(Session(settings, stores)), task)
    inputs = Inputs(found.function, interface_of(found)).parse_inputs(
        f"flyte run deployed-task {task}", list(rest), inputs_file
    )
    settings = settings.change(
        project=options["run_project"] or None, domain=options["run_domain"] or None
    )
    run_and_report(console, Session(settings, stores), found, inputs)


def interface_of(task: DeployedTask) -> Interface:
    """Return the interface of a deployed task, its texts made printable for a terminal."""
    told = task.document.tasks[task.function]["interface"]
    inputs = [
        {**each, "doc": _shown(each["doc"]), "default_text": _shown(each["default_text"])}
        for each in told["inputs"]
    ]
    return Interface.from_document({**told, "doc": _shown(told["doc"]), "inputs": inputs})


def _shown(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def run_and_report(console: Console, session: Session, task: DeployedTask, inputs: Wires) -> None:
    """Run a deployed task, and report how it ended."""
    with console.only_document():
        finished = run_deployed(task, session, inputs, console.take_spare())
    report(console, finished, session.stores)
