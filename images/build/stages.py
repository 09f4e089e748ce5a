"""Stages of a recipe, and the names of their nodes."""

from __future__ import annotations

from flyte_build.images.docker.execute import describe
from flyte_build.images.recipe import Copy, Execute, Packages, Recipe


def stages_of(recipe: Recipe) -> list[tuple[list[Packages | Copy], Execute | None]]:
    """Return the steps in stages, each of which ends with a step to be executed, or with None."""
    stages: list[tuple[list[Packages | Copy], Execute | None]] = [([], None)]
    for step in recipe.steps:
        if isinstance(step, Execute):
            stages[-1] = (stages[-1][0], step)
            stages.append(([], None))
        else:
            stages[-1][0].append(step)
    return stages


def node_names(recipe: Recipe, platform: str) -> list[str]:
    """Return the names of the nodes of an image, in order."""
    names = [dockerfile_name(recipe.base.file)] if recipe.base.kind == "dockerfile" else []
    for steps, execute in stages_of(recipe):
        names += [platform] if steps or execute is None else []
        names += [describe(execute)] if execute else []
    return names


def dockerfile_name(file: str) -> str:
    return f"the Dockerfile {file}"


def stage_label(label: str, platform: str, at: int) -> str:
    """Return the label of a stage that `at` others follow; the last stage is the image itself."""
    return f"stage:{label} {platform} {at}" if at else f"image:{label} {platform}"


def latest_tag(name: str, platform: str) -> str:
    """Return the tag of the last published image of a name, whose layers the next one can reuse."""
    return f"image.{name[:80]}.latest-{platform.partition('/')[2]}"
