"""The image that a deployment pins: built where it is missing, and kept beside it."""

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
    """An environment's image for each of its platforms, the Python in it, and the packages that it
    was locked to.
    """

    imager: Imager
    image: EnvironmentImage
    python: str
    packages: tuple[LockedPackages, ...]

    @classmethod
    def build(cls, plan: FilePlan, name: str, image: ImageChoice) -> PinnedImage | None:
        """The image that the environment `name` declares; None if the session is read only and it
        would have to be made.
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
        """What the deployment's document says of it: identities alone."""
        images = {platform: built.image.identity for platform, built in self.image.images.items()}
        packages = (
            {each.platform: each.wheels for each in self.packages}
            if self.packages
            else dict.fromkeys(images, ())
        )
        return of_image(images, self.python, packages)

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """The manifests of the images."""
        return tuple(built.image.manifest for built in self.image.images.values())

    @property
    def seen(self) -> Mapping[str, str]:
        """Where the wheels were seen, by digest."""
        return {wheel.digest: wheel.url for each in self.packages for wheel in each.wheels}

    def put(self, repository: Repository) -> None:
        """Keep the images in a repository, whole: layers of a base are mounted there,
        or sent once.
        """
        for built in self.image.images.values():
            self.imager.put(built, repository, keep_tag(built.image.manifest.digest))

    def publish(self) -> None:
        """Publish what was built to the shared cache, executed steps too, so that nobody has to
        make it again.
        """
        if any(each.state == "made" for each in self.image.nodes):
            self.imager.publish(self.image)
