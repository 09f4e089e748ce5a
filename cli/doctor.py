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
    """Check that all deployments are still complete: manifests, code and images.

    All projects are checked. Fails (exit code 3) if anything is lost or damaged. Deploying the same
    version again restores what is lost, and missing tags.
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
                f"Tags of {plural(untagged, 'deployment')} are missing: a registry may delete data."
                " Deploy the same again to restore the tags."
            )
    if broken:
        raise click.exceptions.Exit(3)
