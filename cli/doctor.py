"""`flyte doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from flyte_build.attempts import Stores
from flyte_build.deployed import Deployments
from flyte_build.deployments.catalogue import Found

from .console import Console
from .options import of_a_deployment, settings_of


@click.command()
@of_a_deployment
@click.pass_obj
def doctor(console: Console, /, **options: Any) -> None:
    """Check that all that is deployed, in whatever project, can still be had: manifests, code, images.

    It ends with exit code 3 if something is lost. Deploying the same again puts back what is lost.
    """
    deployments = Deployments(settings_of(console, options), Stores(console), console)
    checked: list[dict[str, Any]] = []

    def show(found: Found, lost: Sequence[str]) -> None:
        release = found.release
        checked.append({"name": release.tag, "digest": release.pin, "lost": list(lost)})
        if not console.json:
            state = console.style("lost", fg="red") if lost else console.style("ok", fg="green")
            console.print("\n".join([f"{state:4} {release.tag}", *(f"     {each}" for each in lost)]))

    deployments.check(show)
    broken = [each for each in checked if each["lost"]]
    if console.json:
        console.document({"deployments": checked})
    else:
        console.note(f"{len(checked):,} deployments checked; {len(broken):,} broken.")
    if broken:
        raise click.exceptions.Exit(3)
