"""`flyte doctor`."""

from __future__ import annotations

from typing import Any

import click

from flyte_build.ops.releases import Deployments
from flyte_build.text.wording import plural, printable

from .console import Console
from .options import of_a_deployment, session_of

_COLOURS = {"lost": "red", "damaged": "red", "ok": "green"}


@click.command()
@of_a_deployment
@click.pass_obj
def doctor(console: Console, /, **options: Any) -> None:
    """Check that all that is deployed, in whatever project, can still be had: manifests, code,
    images.

    It ends with exit code 3 if something is lost or damaged. Deploying the same again puts back
    what is lost, and tags that are missing.
    """
    deployments = Deployments(session_of(console, options))
    several = len(deployments.catalogue.repositories) > 1
    checked: list[dict[str, Any]] = []
    for each in deployments.check():
        health = each.health
        found = {"lost": health.lost, "damaged": health.damaged, "untagged": health.untagged}
        checked.append(
            {
                "name": each.tag,
                "repository": each.place,
                "digest": each.pin,
                "state": health.state,
                **found,
            }
        )
        if not console.json:
            state = console.style(health.state, fg=_COLOURS[health.state])
            console.print(f"{state:4} {each.tag}" + (f" in {each.place}" if several else ""))
            for text in (
                *health.lost,
                *health.damaged,
                *(f"The tag {tag} is missing." for tag in health.untagged),
            ):
                console.print(f"     {printable(text)}")
    broken = sum(each["state"] != "ok" for each in checked)
    untagged = sum(bool(each["untagged"]) for each in checked)
    if console.json:
        console.document({"deployments": checked})
    else:
        console.line(f"{plural(len(checked), 'deployment')} checked; {broken:,} broken.")
        if untagged:
            console.line(
                f"Of {untagged:,} a tag is missing, without which a registry may collect them."
                " Deploying the same again puts it back."
            )
    if broken:
        raise click.exceptions.Exit(3)
