"""`flyte rerun`."""

from __future__ import annotations

from typing import Any

import click

from flyte_build.errors import UsageError
from flyte_build.ops.gc import start_if_due
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.rerun import Recorded
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.runner.action import ROOT
from flyte_build.settings.settings import Settings
from flyte_build.values.type import Wires
from flyte_build.workspace.workspace import root_here

from .console import Console
from .inputs import Inputs
from .options import of_a_new_run, of_a_registry, pairs, with_registries
from .report import report, run_and_report


@click.command(context_settings={"allow_interspersed_args": False})
@of_a_new_run
@of_a_registry
@click.option(
    "--as-then", is_flag=True, help="Run the stored code of RUN instead of the current file."
)
@click.option(
    "--recover",
    is_flag=True,
    help="Take over the results of all actions that succeeded in RUN: only the others run.",
)
@click.option("--force", is_flag=True, help="With --recover: even if the code has changed.")
@click.option(
    "--action-name",
    metavar="ACTION",
    default=ROOT,
    help="Run this action of RUN alone, with the inputs that it had.",
)
@click.argument("run", metavar="RUN")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED, metavar="[INPUTS]...")
@click.pass_obj
def rerun(
    console: Console,
    /,
    name: str | None,
    env: tuple[str, ...],
    label: tuple[str, ...],
    action_name: str,
    run: str,
    rest: tuple[str, ...],
    **options: Any,
) -> None:
    """Run the task of an earlier run again, with the original inputs.

    It runs the current version of the file; with --as-then, or if the task was deployed, the
    original code. Options of `rerun` go before RUN, and inputs to override after it; --recover,
    --force and --as-then may stand there, too. `flyte rerun RUN --help` shows the inputs.
    Environment variables that were set with `-e` are not stored, and must be set again.
    """
    stores = Stores(console)
    recorded = Recorded.find(run, stores.history, action_name)
    late, rest = _late_flags(rest, recorded.inputs)
    is_stored, recovers, force = (
        options.pop(each) or each in late for each in ("as_then", "recover", "force")
    )
    if recovers:
        recorded.refuse_recovery()
    variables, labels = pairs("--env", env, "MODE=fast"), pairs("--label", label, "team=blue")
    config = with_registries(console.configuration(recorded.root or root_here()), **options)
    settings = recorded.settings(Settings.configured(config)).change(
        name=name, env=variables, labels=labels, recovers=run if recovers else None
    )
    session = Session(settings, stores)
    if recorded.is_script:
        _rerun_script(console, session, recorded, rest)
        return
    if recorded.deployment:
        _rerun_deployed(console, session, recorded, rest)
        return
    click.get_current_context().call_on_close(lambda: start_if_due(stores, config))
    if is_stored:
        _rerun_stored(console, session, recorded, rest)
        return
    plan = FilePlan(session, recorded.workspace())
    variable = recorded.variable_in(plan.discover())
    task = plan.discovery.task(variable)
    changed = Inputs(recorded.variable, recorded.interface(task)).parse_inputs(
        f"flyte rerun {run}", list(rest)
    )
    if sentence := recorded.forgotten(task, session.settings):
        console.note(sentence)
    if recovers and not force:
        recorded.refuse_changed_code(plan)
    elif recorded.has_other_code(plan):
        console.note(
            f"The code has changed since {run}: this runs the current code. Use `--as-then` to run"
            " the original."
        )
    run_and_report(console, plan, variable, {**recorded.inputs, **changed}, explain=False)


def _late_flags(rest: tuple[str, ...], inputs: Wires) -> tuple[set[str], tuple[str, ...]]:
    """Return the flags of `rerun` among its inputs, unless they name an input, and the others."""
    flags = {
        f"--{name.replace('_', '-')}": name
        for name in ("as_then", "recover", "force")
        if name not in inputs
    }
    return {flags[word] for word in rest if word in flags}, tuple(
        word for word in rest if word not in flags
    )


def _rerun_stored(
    console: Console, session: Session, recorded: Recorded, rest: tuple[str, ...]
) -> None:
    changed = Inputs(recorded.variable, recorded.interface(recorded.spec)).parse_inputs(
        f"flyte rerun --as-then {recorded.run}", list(rest)
    )
    if sentence := recorded.forgotten(recorded.spec, session.settings):
        console.note(sentence)
    with console.only_document():
        finished = recorded.run_stored(session, {**recorded.inputs, **changed}, console.take_spare)
    report(console, finished, session.stores)


def _rerun_deployed(
    console: Console, session: Session, recorded: Recorded, rest: tuple[str, ...]
) -> None:
    from flyte_build.ops.deployed_task import find_task
    from flyte_build.ops.releases import Deployments

    from .deployed_task import run_and_report

    task = find_task(Deployments(session), recorded.deployment)
    changed = Inputs(task.function, recorded.interface(task.spec)).parse_inputs(
        f"flyte rerun {recorded.run}", list(rest)
    )
    if sentence := recorded.forgotten(task.spec, session.settings):
        console.note(sentence)
    run_and_report(console, session, task, {**recorded.inputs, **changed})


def _rerun_script(
    console: Console, session: Session, recorded: Recorded, rest: tuple[str, ...]
) -> None:
    from .script import run_and_report_script

    if rest:
        raise UsageError(
            f"The run {recorded.run} ran a script, which has no inputs",
            hint="Use `flyte run python-script` to pass other arguments.",
        )
    run_and_report_script(console, session, recorded.inputs, recorded.timeout)
