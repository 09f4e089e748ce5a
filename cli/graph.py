"""`flyte graph`."""

from __future__ import annotations

from typing import Any, Literal

import click

from flyte_build.bundler.copy_style import CopyStyle
from flyte_build.graph.node import Node, Outcome
from flyte_build.graph.resolver import edges
from flyte_build.ops.graph import size_of, survey
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.settings.settings import Settings
from flyte_build.text.units import rounded_size
from flyte_build.workspace.workspace import locate

from .console import Console, Quiet, node_json
from .options import of_a_bundle, of_a_source, with_registries


@click.command()
@click.option(
    "--format",
    type=click.Choice(["text", "mermaid", "json"]),
    default="text",
    help="Output format.",
)
@of_a_bundle
@of_a_source
@click.argument("file", metavar="FILE", type=click.Path())
@click.pass_obj
def graph(
    console: Console,
    /,
    format: Literal["text", "mermaid", "json"],
    copy_style: CopyStyle | None,
    root_dir: str | None,
    file: str,
    **registries: Any,
) -> None:
    """Show all nodes that the tasks of FILE need: their states, sizes and reasons.

    Prepares nothing.
    """
    workspace = locate(file, root_dir)
    stores = Stores(Quiet(console))
    config = with_registries(console.configuration(workspace.root), **registries)
    settings = Settings.configured(config, copy_style=copy_style, version="-")
    plan = FilePlan(Session(settings, stores, read_only=True), workspace)
    with stores.cache.preparing():
        outcomes = survey(plan)
        sizes = [size_of(plan, outcome) for outcome in outcomes]
    pairs = edges(outcomes)
    if console.json or format == "json":
        nodes = [
            {"id": _id(outcome.node), **node_json(outcome), "size": size}
            for outcome, size in zip(outcomes, sizes, strict=True)
        ]
        console.document(
            {"nodes": nodes, "edges": [[_id(one), _id(other)] for one, other in pairs]}
        )
    elif format == "mermaid":
        console.print("\n".join(_mermaid(outcomes, sizes, pairs)))
    else:
        _print(console, outcomes, sizes, pairs)


def _id(node: Node) -> str:
    """Return a unique name for a node.

    The kind is enough, except for packs, which are numbered, and environments.
    """
    return {"pack": node.name, "environment": f"{node.kind} {node.name}"}.get(node.kind, node.kind)


def _print(
    console: Console,
    outcomes: list[Outcome],
    sizes: list[int | None],
    pairs: list[tuple[Node, Node]],
) -> None:
    """Print a line for each node: its state, identifier, size, name, needs and reason."""
    names = ["" if each.node.kind == "pack" else each.node.name for each in outcomes]
    wide, name_wide = (
        max(map(len, texts), default=0) for texts in ([_id(each.node) for each in outcomes], names)
    )
    for outcome, size, name in zip(outcomes, sizes, names, strict=True):
        amount = "-" if size is None else rounded_size(size)
        needs = ", ".join(_id(one) for one, other in pairs if other is outcome.node)
        why = f"in {outcome.place}" if outcome.fetched else outcome.why
        about = [
            f"{_id(outcome.node):{wide}} {amount:>9}  {name:{name_wide}}",
            f"<- {needs}" if needs else "",
            f"({why})" if why else "",
        ]
        color = "green" if outcome.state == "cached" else "cyan"
        line = console.event(outcome.state, color, "  ".join(part for part in about if part))
        console.print(line.rstrip())


def _mermaid(
    outcomes: list[Outcome], sizes: list[int | None], pairs: list[tuple[Node, Node]]
) -> list[str]:
    """Return the lines of a Mermaid flowchart (mermaid.js.org, "Flowcharts")."""
    numbers = {outcome.node: f"n{at}" for at, outcome in enumerate(outcomes)}
    lines = ["flowchart LR"]
    for outcome, size in zip(outcomes, sizes, strict=True):
        node = outcome.node
        name = [] if node.kind == "pack" else [node.name]
        amount = [] if size is None else [rounded_size(size)]
        texts = [
            _id(node),
            *name,
            ", ".join([outcome.state, *amount]),
            *([outcome.why] if outcome.why else []),
        ]
        text = "<br>".join(_escaped(text) for text in texts)
        lines.append(f'    {numbers[node]}["{text}"]:::{outcome.state}')
    lines += [f"    {numbers[one]} --> {numbers[other]}" for one, other in pairs]
    return [
        *lines,
        "    classDef cached stroke:#2a2",
        "    classDef missing stroke:#c60,stroke-dasharray:4",
    ]


def _escaped(text: str) -> str:
    return (
        text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
    )
