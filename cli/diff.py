"""`flyte diff`."""

from __future__ import annotations

from typing import Any

import click

from flyte_build.deployments.names import DeploymentReference
from flyte_build.ops.releases import Deployments, Difference
from flyte_build.text.wording import printable

from .console import Console
from .options import of_a_deployment, session_of


@click.command()
@of_a_deployment
@click.argument("old", metavar="ENV:VERSION")
@click.argument("new", metavar="ENV:VERSION")
@click.pass_obj
def diff(console: Console, /, old: str, new: str, **options: Any) -> None:
    """Show the differences between two deployments.

    It compares interfaces, resources, environments, variables, packages and files. `ENV` alone
    stands for its latest version, and `ENV@sha256:...` for the one with that digest.
    """
    deployments = Deployments(session_of(console, options))
    found = deployments.difference(DeploymentReference.parse(old), DeploymentReference.parse(new))
    if console.json:
        console.document(_document(found))
        return
    for line in _lines(console, found):
        console.print(line)
    if not found.changes and not any(found.files.values()):
        console.line(f"{old} and {new} are the same.")


def _document(found: Difference) -> dict[str, Any]:
    ends = {
        name: {
            "env": each.release.environment,
            "version": each.release.version,
            "digest": each.release.pin,
        }
        for name, each in (("old", found.old), ("new", found.new))
    }
    return {**ends, "changes": [change._asdict() for change in found.changes], "files": found.files}


def _lines(console: Console, found: Difference) -> list[str]:
    lines, section = [], ""
    for change in found.changes:
        if change.section != section:
            section = change.section
            lines.append(console.style(section, bold=True))
        lines.append(f"  {change}")
    marks = {"added": "+", "removed": "-", "changed": "~"}
    files = [
        f"  {marks[how]} {printable(path)}" for how, paths in found.files.items() for path in paths
    ]
    return [*lines, *([console.style("files", bold=True), *files] if files else [])]
