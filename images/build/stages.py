"""How a recipe is cut into stages, and what their nodes are called."""

from __future__ import annotations

from flyte_build.images.docker.execute import describe
from flyte_build.images.recipe import Copy, Execute, Packages, Recipe


def stages_of(recipe: Recipe) -> list[tuple[list[Packages | Copy], Execute | None]]:
    """The steps, cut after each one that must be executed."""
    stages: list[tuple[list[Packages | Copy], Execute | None]] = [([], None)]
    for step in recipe.steps:
        if isinstance(step, Execute):
            stages[-1] = (stages[-1][0], step)
            stages.append(([], None))
        else:
            stages[-1][0].append(step)
    return stages


def node_names(recipe: Recipe, platform: str) -> list[str]:
    """The names of the nodes that an image is made of, in order."""
    names = [dockerfile_name(recipe.base.file)] if recipe.base.kind == "dockerfile" else []
    for steps, execute in stages_of(recipe):
        names += [platform] if steps or execute is None else []
        names += [describe(execute)] if execute else []
    return names


def dockerfile_name(file: str) -> str:
    return f"the Dockerfile {file}"


def stage_label(label: str, platform: str, at: int) -> str:
    """Return the label of a stage that so many others follow: the last one is the image itself."""
    return f"stage:{label} {platform} {at}" if at else f"image:{label} {platform}"


def latest_tag(name: str, platform: str) -> str:
    """The tag of the last image of a name that was published: others use its layers for the next
    one.
    """
    return f"image.{name[:80]}.latest-{platform.partition('/')[2]}"
