"""Building images for a command: those of environments, or one that is declared; what is there is not made again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flyte_build.errors import UsageError
from flyte_build.graph.reporter import Listener
from flyte_build.images.build.builder import BuiltImage
from flyte_build.images.build.plan import OURS
from flyte_build.images.lock.project_lock import Pins
from flyte_build.images.recipe import Recipe, chosen
from flyte_build.settings.settings import Settings

from .project_images import EnvironmentImage, Imager
from .session import Stores
from .targets import Target


def build_images(
    targets: Sequence[Target],
    stores: Stores,
    listener: Listener,
    *,
    push: bool = False,
    force: bool = False,
    dry: bool = False,
) -> list[EnvironmentImage]:
    """The images of environments, each made once: those that are declared, and not those that exist. With `push` they are pushed.

    A `dry` build makes nothing. Raises `ImageBuildError`, `NotLocked`, `EngineUnavailable`, `RegistryError` and `StoreError`.
    """
    done = []
    with stores.cache.preparing():
        for target in targets:
            preparation, settings = target.runner.preparation, target.runner.settings
            declared: dict[str, tuple[Any, list[str]]] = {}
            for environment in target.environments:
                image = preparation.image(environment)
                if isinstance(image, str):
                    what = "the interpreter at hand" if image == "auto" else f"{image} as it is"
                    listener.said(f"{environment['name']} runs in {what}: no image is built for it.")
                    continue
                declared.setdefault(json.dumps(image, sort_keys=True), (image, []))[1].append(environment["name"])
            root = target.runner.project.root
            imager = Imager(root, settings, stores, listener, preparation.pins, force=force, dry=dry)
            for image, names in declared.values():
                recipe = Recipe.of(image)
                built = imager.build(recipe, names, lenient=dry and not settings.locked)
                done.append(imager.push(built, recipe) if push and not dry else built)
            if not dry:
                preparation.pins.save()
    return done


def build_image(
    image: Any, root: str, settings: Settings, stores: Stores, listener: Listener, *, force: bool, dry: bool
) -> EnvironmentImage:
    """The image that is declared by a JSON value; it is pushed if it is said where to. A `dry` build makes nothing."""
    value = chosen(image, settings.images, settings.builder)
    if isinstance(value, str):
        raise UsageError(f"The image {value!r} is none to be built", hint="Add something to it: image.with_pip_packages(...)")
    recipe = Recipe.of(value)
    with stores.cache.preparing():
        pins = Pins(
            root,
            listener.said,
            locked=settings.locked or dry,
            look_up=lambda reference, with_python: imager.look_up(reference, with_python),
        )
        imager = Imager(root, settings, stores, listener, pins, force=force, dry=dry)
        built = imager.build(recipe, [recipe.name or "image"], lenient=dry and not settings.locked)
        if dry:
            return built
        if imager.is_told_where(recipe):
            built = imager.push(built, recipe)
        pins.save()
    return built


def layers_of(built: BuiltImage) -> list[dict[str, Any]]:
    """The layers of an image as JSON values, the base's first: `state` is `base`, `made` or `cached`.

    Those of a Dockerfile, which has no base that is known here, are of the state of its node.
    """
    image = built.image
    made = {each.record.refs[0] for each in built.nodes if each.node.kind == "layer" and each.state == "made" and each.record}
    executed = {each.node.name: each.state for each in built.nodes if each.node.kind == "image"}
    layers = []
    for layer, what in zip(image.manifest.layers, image.contents, strict=True):
        state = "made" if layer.digest in made else "cached" if what.startswith(OURS) else executed.get(what.removeprefix("of "), "base")
        layers.append({"digest": layer.digest, "size": layer.size, "what": what, "state": state})
    return layers
