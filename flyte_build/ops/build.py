"""Building images, of environments or of a single declaration, unless they exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flyte_build.errors import UsageError
from flyte_build.images.build.builder import BuiltImage
from flyte_build.images.build.plan import OURS
from flyte_build.images.image_choice import ImageChoice
from flyte_build.images.lock.project_lock import Pins
from flyte_build.images.recipe import Recipe, chosen

from .project_images import EnvironmentImage, Imager
from .session import Session
from .targets import Target


def build_images(
    targets: Sequence[Target], *, push: bool = False, force: bool = False
) -> list[EnvironmentImage]:
    """Build the images that environments declare, and return them; with `push`, push them.

    An image that several environments share is built once. In a read-only session nothing is built.
    With `force`, existing results are rebuilt. Raises `ImageBuildError`, `NotLocked`,
    `EngineUnavailable`, `RegistryError` and `StoreError`.
    """
    done = []
    for target in targets:
        plan = target.plan
        session = plan.session
        with session.cache.preparing():
            declared: dict[ImageChoice, list[str]] = {}
            for environment in target.environments:
                image = plan.image(environment.image)
                if not image.is_declared:
                    what = (
                        f"{image.reference} unchanged"
                        if image.reference
                        else "the current interpreter"
                    )
                    session.reporter.note(
                        f"{environment.name} runs in {what}: no image is built for it."
                    )
                    continue
                declared.setdefault(image, []).append(environment.name)
            imager = Imager(session, plan.workspace.root, plan.pins, force=force)
            for image, names in declared.items():
                recipe = image.recipe
                built = imager.build(recipe, names)
                done.append(imager.push(built, recipe) if push and not session.read_only else built)
            if not session.read_only:
                plan.pins.save()
    return done


def build_image(session: Session, image: Any, root: str, *, force: bool) -> EnvironmentImage:
    """Build the image that a JSON value declares, and push it if a registry is configured.

    In a read-only session nothing is built or pushed. Raises `UsageError` if the value is only a
    reference.
    """
    settings = session.settings
    value = chosen(image, settings.images, settings.builder)
    if isinstance(value, str):
        raise UsageError(
            f"The image {value!r} has nothing to build",
            hint="Add something to it, for example image.with_pip_packages(...).",
        )
    recipe = Recipe.of(value)
    with session.cache.preparing():
        pins = Pins(
            root,
            session.reporter.note,
            locked=settings.locked or session.read_only,
            look_up=lambda reference, with_python: imager.look_up(reference, with_python),
        )
        imager = Imager(session, root, pins, force=force)
        built = imager.build(recipe, [recipe.name or "image"])
        if session.read_only:
            return built
        if imager.is_told_where(recipe):
            built = imager.push(built, recipe)
        pins.save()
    return built


def layers_of(built: BuiltImage) -> list[dict[str, Any]]:
    """Return the layers of an image as JSON values, the base's first.

    `state` is `base`, `made` or `cached`. The layers of a Dockerfile, whose base is unknown here,
    have the state of its node.
    """
    image = built.image
    made = {
        blob
        for each in built.nodes
        if each.node.kind == "layer" and each.state == "made" and each.record
        for blob in each.record.refs
    }
    executed = {each.node.name: each.state for each in built.nodes if each.node.kind == "image"}
    layers = []
    for layer, what in zip(image.manifest.layers, image.contents, strict=True):
        state = (
            "made"
            if layer.digest in made
            else (
                "cached"
                if what.startswith(OURS)
                else executed.get(what.removeprefix("of "), "base")
            )
        )
        layers.append({"digest": layer.digest, "size": layer.size, "what": what, "state": state})
    return layers
