"""Running a task and reporting its result, for all commands that run one."""

from __future__ import annotations

from collections.abc import Sequence

import click

from flyte_build.graph.node import Outcome
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.run import run_task
from flyte_build.ops.stores import Stores
from flyte_build.runner.controller.run import Finished
from flyte_build.runner.result import Failure
from flyte_build.values.type import Wires

from .console import Console, node_json


def run_and_report(
    console: Console, plan: FilePlan, variable: str, inputs: Wires, explain: bool
) -> None:
    """Run the task in the variable named `variable`, and report its result."""
    with console.only_document():
        finished = run_task(plan, variable, inputs, console.take_spare)
    # The document contains the final counters; otherwise, the result is printed without delay.
    if console.json:
        plan.finish()
    outcomes = plan.outcomes
    if explain:
        console.line(f"  root {plan.workspace.root}")
        for outcome in outcomes:
            console.line(
                f"  {outcome.state:7} {outcome.node.kind:10} {outcome.node.name} "
                f" {outcome.why or outcome.key}"
            )
    try:
        report(
            console,
            finished,
            plan.session.stores,
            outcomes,
            local=plan.session.settings.engine == "local",
        )
    # The task failed. An interruption raises another error, and also ends the waiting.
    except click.exceptions.Exit:
        plan.finish()
        raise
    plan.finish()


def report(
    console: Console,
    finished: Finished,
    stores: Stores,
    outcomes: Sequence[Outcome] = (),
    local: bool = False,
) -> None:
    """Print the result of a run. Raises `click.exceptions.Exit` unless it succeeded."""
    result = finished.result
    if console.json:
        console.document(
            {
                "run": finished.name,
                "url": finished.url,
                "phase": result.phase,
                "outputs": dict(result.outputs),
                "error": result.error and result.error.shown(),
                "prepared": [node_json(outcome) for outcome in outcomes],
                "counters": stores.counters.snapshot(),
                "seconds": round(finished.seconds, 6),
            }
        )
    elif result.phase == "succeeded":
        console.result(result.outputs, f"flyte -of json get io {finished.name}")
    else:
        _print_failure(console, finished, local)
    if result.phase != "succeeded":
        raise click.exceptions.Exit(finished.exit_code)


def _print_failure(console: Console, finished: Finished, local: bool) -> None:
    phase, error = finished.result.phase, finished.result.error or Failure("", "")
    if local and error.traceback:  # A worker has printed it.
        console.line(error.traceback.rstrip(), "error")
    head = console.style(f"{phase.replace('_', ' ')}:", fg="red", bold=True)
    console.line(f"{head} {finished.task}: {error.type}: {error.message}", "error")
    if error.hint:
        console.line(f"  {error.hint}", "error")
    if not local:
        console.line(f"  `flyte get logs {finished.name}` shows the task's output.")
