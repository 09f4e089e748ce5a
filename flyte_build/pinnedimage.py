"""The image that a deployment pins: built where it is missing, and kept beside the deployment, so that it needs nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.repository import Repository
from flyte_build.images.recipe import Recipe

from .building import EnvironmentImage, Imager
from .cas.registry.tags import keep_tag
from .deployments.runtime import of_image
from .graph.reporter import Listener
from .images.lock.pins import LockedPackages
from .running import Runner
from .settings.settings import Settings
from .stores import Stores


@dataclass(frozen=True, kw_only=True)
class PinnedImage:
    """An environment's image for each of its platforms, the Python in it, and the packages that it was locked to."""

    imager: Imager
    image: EnvironmentImage
    python: str
    packages: tuple[LockedPackages, ...]

    @classmethod
    def build(
        cls, runner: Runner, settings: Settings, stores: Stores, listener: Listener, name: str, image: Any, dry: bool
    ) -> "PinnedImage | None":
        """The image that the environment `name` declares (a JSON value); None in a dry run that would have to make it."""
        pins, recipe = runner.preparation.pins, Recipe.of(image)
        imager = Imager(runner.project.root, settings, stores, listener, pins, dry=dry)
        built = imager.build(recipe, [name])
        if not built.images:
            return None
        python = pins.python(recipe)
        packages = tuple(pins.packages(recipe, python, platform) for platform in built.images) if recipe.locks else ()
        return cls(imager=imager, image=built, python=python, packages=packages)

    @cached_property
    def runtime(self) -> Mapping[str, Any]:
        """What the deployment's document says of it: identities alone."""
        images = {platform: built.image.identity for platform, built in self.image.images.items()}
        packages = {each.platform: each.wheels for each in self.packages} if self.packages else dict.fromkeys(images, ())
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
        """Keep the images in a repository, whole: layers of a base are mounted there, or sent once."""
        for built in self.image.images.values():
            self.imager.put(built, repository, keep_tag(built.image.manifest.digest))

    def publish(self) -> None:
        """Publish what was built to the shared cache, executed steps too, so that nobody has to make it again."""
        if any(each.state == "made" for each in self.image.nodes):
            self.imager.publish(self.image)
