"""Images of a project's environments: build what is missing, push and publish them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.name import RepositoryName, check_tag
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.tags import keep_tag
from flyte_build.errors import UsageError
from flyte_build.graph.node import Outcome
from flyte_build.images.build.base import Bases
from flyte_build.images.build.builder import BuiltImage, ImageBuilder
from flyte_build.images.build.planned_image import PlannedImage
from flyte_build.images.build.publisher import ImagePublisher, index_of
from flyte_build.images.build.sources import BuildOptions, BuildSources, Pinned
from flyte_build.images.build.stages import latest_tag
from flyte_build.images.build.step_results import StepResults
from flyte_build.images.docker.execute import DockerExecutor
from flyte_build.images.docker.load import Fetch
from flyte_build.images.layers.file_digests import ProjectFiles
from flyte_build.images.oci_image import OciImage
from flyte_build.images.platforms import linux_here
from flyte_build.images.recipe import Recipe

from .session import Session


@dataclass(frozen=True, kw_only=True)
class EnvironmentImage:
    """Image of some environments: `found` holds the built or planned image for each platform.

    `reference` is where it was pushed, or None.
    """

    envs: tuple[str, ...]
    found: Mapping[str, BuiltImage | PlannedImage]
    reference: str | None = None

    @property
    def images(self) -> Mapping[str, BuiltImage]:
        """The built image for each platform; empty if a read-only build lacks any of them."""
        built = {
            platform: each for platform, each in self.found.items() if isinstance(each, BuiltImage)
        }
        return built if len(built) == len(self.found) else {}

    @property
    def digest(self) -> Digest | None:
        """Digest of the manifest, or of the index if there are several platforms.

        None if a read-only build cannot determine it.
        """
        images = [each.image for each in self.images.values()]
        if not images:
            return None
        return images[0].manifest.digest if len(images) == 1 else index_of(images).digest

    @property
    def uri(self) -> str | None:
        """The reference by digest, as engines accept it; None if the image was not pushed."""
        return (
            None if self.reference is None else f"{self.reference.rpartition(':')[0]}@{self.digest}"
        )

    @property
    def nodes(self) -> list[Outcome]:
        """Outcomes of all nodes in order, including those that a read-only build would build."""
        return [each for found in self.found.values() for each in found.nodes]


class Imager:
    """Builder and publisher of the images of the project at `root`, with its `pins`.

    With `force`, existing layers are rebuilt, and steps are executed again.
    """

    def __init__(self, session: Session, root: str, pins: Pinned, *, force: bool = False) -> None:
        settings, stores, reporter = session.settings, session.stores, session.reporter
        self._session, self._root = session, root
        self._open = stores.repositories.open
        cache, files = (
            stores.cache,
            ProjectFiles(root, stores.cache.index, stores.counters, settings.allow_secrets),
        )
        sources = BuildSources(
            bases=Bases(cache, self._open, reporter.bytes_moved),
            open_repository=self._open,
            kept=StepResults(stores.places.executed, root, cache, stores.counters),
            executor=DockerExecutor(files, cache, settings.image_compression, reporter.step_output),
            remote=session.sharing if settings.registries.reads else None,
        )
        options = BuildOptions(
            debian=settings.image_base,
            compression=settings.image_compression,
            anew=force,
            read_only=session.read_only,
            lenient=session.read_only and not settings.locked,
        )
        self.look_up = sources.bases.look_up
        self._builder = ImageBuilder(files, cache, pins, sources, options, reporter)

    def build(self, recipe: Recipe, envs: Sequence[str]) -> EnvironmentImage:
        """Return the image of a recipe for all of its platforms, building what is missing.

        In a read-only session nothing is built or pinned: the result then has no images if one of
        them would have to be built (or, without `--locked`, pinned).
        """
        label = f"{self._root} {envs[0]}"
        platforms = recipe.platforms or (linux_here(),)
        found = {platform: self._builder.build(recipe, platform, label) for platform in platforms}
        return EnvironmentImage(envs=tuple(envs), found=found)

    def push(self, built: EnvironmentImage, recipe: Recipe) -> EnvironmentImage:
        """Push an image to its declared or configured registry, and publish its records.

        Raises `UsageError` if no registry is declared or configured.
        """
        name, tag = self._target(built, recipe)
        repository = self._open(name)
        self._publisher(repository, built.images.values()).push_all(
            [each.image for each in built.images.values()], tag
        )
        self.publish(built)
        return replace(built, reference=f"{name}:{tag}")

    def fetch(self, built: BuiltImage) -> Fetch:
        """Return a function that fetches the image's remote layers."""
        return self._builder.fetch(built.places)

    def put(self, built: BuiltImage, repository: Repository, tag: str) -> None:
        """Push an image to a repository, under a tag."""
        self._publisher(repository, [built]).push(built.image, tag)

    def publish(self, built: EnvironmentImage) -> None:
        """Publish an image and its records to the shared cache, if one is configured."""
        write = self._session.settings.registries.write
        if write is None:
            return
        repository = self._open(write)
        publisher = self._publisher(repository, built.images.values())
        records = [each.record for each in built.nodes if each.node.shared and each.record]
        for record in records:
            image = OciImage.read(record.artifact, self._session.cache.blobs)
            publisher.push(image, keep_tag(image.manifest.digest))
        for platform, each in built.images.items():
            repository.put_manifest(each.image.manifest, latest_tag(built.envs[0], platform))
        self._session.sharing.publish(records)
        self._session.sharing.finish()

    def _publisher(self, repository: Repository, images: Iterable[BuiltImage]) -> ImagePublisher:
        """Return a publisher to a repository; layers may come from the places of `images`."""
        names = dict.fromkeys(place for each in images for place in each.places)
        sources = [self._open(RepositoryName.parse(name)) for name in names]
        return ImagePublisher(
            repository, self._session.cache, sources, self._session.reporter.bytes_moved
        )

    def is_told_where(self, recipe: Recipe) -> bool:
        """Whether a registry is declared or configured for the image of a recipe."""
        registries = self._session.settings.registries
        return bool(
            recipe.registry
            or self._session.settings.image_registry
            or registries.write
            or registries.home
        )

    def _target(self, built: EnvironmentImage, recipe: Recipe) -> tuple[RepositoryName, str]:
        """Return the repository to push an image to, and its tag, which identifies its content."""
        identities = [each.image.identity for each in built.images.values()]
        assert built.digest is not None
        short = identities[0].short if len(identities) == 1 else built.digest.short
        name = recipe.name or built.envs[0]
        if registry := recipe.registry or self._session.settings.image_registry:
            return RepositoryName.parse(f"{registry.rstrip('/')}/{_path(name)}"), short
        home = self._session.settings.registries.write or self._session.settings.registries.home
        if home is None:
            raise UsageError(
                f"No registry is configured for the image of {built.envs[0]}",
                hint=(
                    "Set `registry`, pass --registry HOST/NAME, or declare the image with"
                    " registry=..."
                ),
            )
        return home, check_tag(f"image.{name}.{short}", "The image's tag")


def _path(name: str) -> str:
    """Return a name in the form of a component of a repository's path."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "image"
