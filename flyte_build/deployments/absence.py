"""The error for a deployment that does not exist, which names similar ones."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from flyte_build.errors import NotFound

from .names import LATEST, DeploymentReference, Namespace

_SHOWN = 5


def absence(
    space: Namespace,
    reference: DeploymentReference,
    known: Sequence[tuple[Namespace, str, str]],
    places: str,
) -> NotFound:
    """Return the error for a `reference` that is not found in `space`.

    `known` are the spaces, environments and versions that are deployed in the searched
    repositories; `places` names these repositories in messages.
    """
    environment = reference.environment
    versions = sorted(
        {version for where, name, version in known if (where, name) == (space, environment)}
        - {LATEST}
    )
    if reference.version in versions:
        return NotFound(
            f"{environment}:{reference.version} is lost",
            why="Its tag exists, but its index does not.",
            hint="Deploy the same again to restore it.",
        )
    if versions and reference.pin:
        return NotFound(
            f"{environment} has no deployment {reference.pin}",
            why=f"It is not in {space}.",
            hint=f"List its deployments and their digests: `flyte get deployment {environment}`.",
        )
    if versions:
        near = get_close_matches(reference.version, versions, _SHOWN, 0.3) or versions[-_SHOWN:]
        there = (
            f"there are {len(versions):,}; the most similar"
            if len(versions) > 1
            else "there is one"
        )
        return NotFound(
            f"{environment} has no version {reference.version or LATEST!r}",
            why=f"In {space} {there}: {', '.join(near)}.",
            hint=(
                f"List them with `flyte get deployment {environment}`."
                if len(versions) > 1
                else f"Did you mean {environment}:{versions[0]}?"
            ),
        )
    elsewhere = next((where for where, name, _ in known if name == environment), None)
    if elsewhere:
        return NotFound(
            f"{environment} is not deployed in {space}",
            why=f"It is deployed in {elsewhere}.",
            hint=f"Add --project {elsewhere.project} --domain {elsewhere.domain}.",
        )
    names = sorted({name for where, name, _ in known if where == space})
    near = get_close_matches(environment.lower(), names, _SHOWN, 0.5)
    return NotFound(
        f"{environment} is not deployed",
        why=f"No environment of that name in {space} is known to {places}.",
        hint=(
            f"Did you mean {' or '.join(near)}?"
            if near
            else "Deploy one with `flyte deploy FILE`, or list them with `flyte get deployment`."
        ),
    )
