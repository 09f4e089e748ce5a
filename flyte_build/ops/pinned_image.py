"""Image that a deployment pins: built if missing, and kept in the same repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.tags import keep_tag
from flyte_build.deployments.runtime import of_image
from flyte_build.images.image_choice import ImageChoice
from flyte_build.images.lock.pins import LockedPackages

from .prepare import FilePlan
from .project_images import EnvironmentImage, Imager


@dataclass(frozen=True, kw_only=True)
class PinnedImage:
    """An environment's image for all of its platforms, its Python, and its locked packages."""

    imager: Imager
    image: EnvironmentImage
    python: str
    packages: tuple[LockedPackages, ...]

    @classmethod
    def build(cls, plan: FilePlan, name: str, image: ImageChoice) -> PinnedImage | None:
        """Return the image that the environment `name` declares, building it if it is missing.

        None if it is missing and the session is read-only.
        """
        pins, recipe = plan.pins, image.recipe
        imager = Imager(plan.session, plan.workspace.root, pins)
        built = imager.build(recipe, [name])
        if not built.images:
            return None
        python = pins.python(recipe)
        packages = (
            tuple(pins.packages(recipe, python, platform) for platform in built.images)
            if recipe.locks
            else ()
        )
        return cls(imager=imager, image=built, python=python, packages=packages)

    @cached_property
    def runtime(self) -> Mapping[str, Any]:
        """The image as described in the deployment's document, which holds identities only."""
        images = {platform: built.image.identity for platform, built in self.image.images.items()}
        packages = (
            {each.platform: each.wheels for each in self.packages}
            if self.packages
            else dict.fromkeys(images, ())
        )
        return of_image(images, self.python, packages)

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """The manifests of the image, one for each platform."""
        return tuple(built.image.manifest for built in self.image.images.values())

    @property
    def seen(self) -> Mapping[str, str]:
        """The URLs of the wheels, by digest."""
        return {wheel.digest: wheel.url for each in self.packages for wheel in each.wheels}

    def put(self, repository: Repository) -> None:
        """Push the complete images to a repository, under tags that keep them.

        Layers of a base image are mounted from its repository, or else pushed once.
        """
        for built in self.image.images.values():
            self.imager.put(built, repository, keep_tag(built.image.manifest.digest))

    def publish(self) -> None:
        """Publish the image to the shared cache if any part of it was built.

        Executed steps are published as well, so that no other machine has to repeat them.
        """
        if any(each.state == "made" for each in self.image.nodes):
            self.imager.publish(self.image)
