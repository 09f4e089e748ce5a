"""`flyte.build` and `flyte.build_images`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyte_build.declarations.environment import TaskEnvironment
from flyte_build.declarations.image import Image
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.runner.reporter import RunReporter

from .blocking import Blocking
from .init import current, project_root, refuse_while_imported

if TYPE_CHECKING:
    from flyte_build.ops.project_images import EnvironmentImage


def _build(image: Image, dry_run: bool = False, force: bool = False) -> EnvironmentImage:
    """Build an image as `flyte build` does, and push it if a registry is configured.

    With `dry_run`, nothing is built. With `force`, existing results are rebuilt.
    """
    from flyte_build.declarations.serialize import image_value
    from flyte_build.ops.build import build_image

    refuse_while_imported("flyte.build")
    root = project_root()
    session = Session(current(), Stores(RunReporter()), read_only=dry_run)
    return build_image(session, image_value(image, root), root, force=force)


build = Blocking(_build)


def _build_images(*environments: TaskEnvironment) -> dict[str, EnvironmentImage]:
    """Build the images of environments and their dependencies, and return them by environment name.

    They are pushed if a registry is configured.
    """
    from flyte_build.ops.build import build_images as build_all
    from flyte_build.ops.targets import targets_of

    refuse_while_imported("flyte.build_images")
    settings = current().change(version="-")
    session = Session(settings, Stores(RunReporter()))
    targets = targets_of(session, "flyte.build_images", environments, for_images=True)
    push = bool(settings.image_registry or settings.registries.write or settings.registries.home)
    return {name: each for each in build_all(targets, push=push) for name in each.envs}


build_images = Blocking(_build_images)
