"""`flyte get io`."""

from __future__ import annotations

import click

from flyte_build.ops.stores import Stores
from flyte_build.runner.action import ROOT

from .console import Console
from .listing import print_values
from .options import actions, runs


@click.command("io")
@click.option("-i", "--inputs-only", is_flag=True, help="Show only the inputs.")
@click.option("-o", "--outputs-only", is_flag=True, help="Show only the outputs.")
@click.argument("run", metavar="RUN", shell_complete=runs)
@click.argument("action", metavar="[ACTION]", required=False, shell_complete=actions)
@click.pass_obj
def io(
    console: Console, inputs_only: bool, outputs_only: bool, run: str, action: str | None
) -> None:
    """Show the inputs and outputs of a run, or of one of its actions."""
    history = Stores(console).history
    name = history.find_action(run, action or ROOT).name
    inputs, result = history.io(run, name)
    document = {}
    if inputs_only or not outputs_only:
        document["inputs"] = inputs
    if outputs_only or not inputs_only:
        document["outputs"] = dict(result.outputs) if result else {}
    if console.json:
        console.document(document)
        return
    if not any(document.values()):
        whose = f"The run {run}" if name == ROOT else f"The action {name} of the run {run}"
        console.line(f"{whose} has no {' and no '.join(document)}.")
    more = f"flyte -of json get io {run}" + ("" if name == ROOT else f" {name}")
    for kind, values in document.items():
        print_values(console, kind.removesuffix("s"), values, more)
