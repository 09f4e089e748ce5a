"""Building images from recipes, in stages that end at each step to be executed.

A stage becomes one image node, on top of the stage before it or of the recipe's base.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Key
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.errors import EngineUnavailable, NotLocked
from flyte_build.graph.node import Node, Outcome
from flyte_build.graph.reporter import Reporter
from flyte_build.graph.resolver import Resolver
from flyte_build.images.docker.context import Contexts
from flyte_build.images.docker.execute import describe
from flyte_build.images.docker.install import local
from flyte_build.images.docker.load import Fetch
from flyte_build.images.layers.file_digests import ProjectFiles
from flyte_build.images.layers.files import Copied, Copier
from flyte_build.images.layers.wheel_download import Fetcher
from flyte_build.images.lock.pins import LockedPackages
from flyte_build.images.oci_image import OciImage
from flyte_build.images.recipe import Copy, Execute, Packages, Recipe
from flyte_build.images.reference import ImageReference

from .base import BaseSource, LocalBase, RegistryBase
from .nodes import ImageNode, ImageTarget, TaggedLayers
from .plan import FORMAT, Plan
from .planned_image import PlannedImage
from .publisher import LayerSources
from .sources import BuildOptions, BuildSources, Pinned, StepExecutor
from .stages import dockerfile_name, latest_tag, node_names, stage_label, stages_of
from .step_node import Step, StepNode, StepStore
from .step_results import StepResult


@dataclass(frozen=True)
class BuiltImage:
    """A built image for one platform, on this machine; its layers may be remote.

    `places` are repositories that contain some of its layers; `nodes` are the outcomes of its
    nodes, in order, and the last one is that of the image.
    """

    image: OciImage
    places: tuple[str, ...]
    nodes: Sequence[Outcome]

    @property
    def record(self) -> Record:
        """The record of the image."""
        record = self.nodes[-1].record
        assert record is not None
        return record


class ImageBuilder:
    """Builder of the images of one project."""

    def __init__(
        self,
        files: ProjectFiles,
        cache: Cache,
        pins: Pinned,
        sources: BuildSources,
        options: BuildOptions,
        reporter: Reporter,
    ) -> None:
        self._root, self._cache, self._pins = files.root, cache, pins
        self._sources, self._options, self._reporter = sources, options, reporter
        self._copier, self._contexts = Copier(files), Contexts(files)
        self._offers = None if options.anew else sources.remote
        self._fetcher = Fetcher(files.root, cache.blobs, files.counters, reporter.bytes_moved)

    def build(self, recipe: Recipe, platform: str, label: str) -> BuiltImage | PlannedImage:
        """Build the image of a recipe for one platform, unless it exists.

        A read-only build returns a plan if something would have to be built. The outcome is
        remembered under `label`. Raises `ImageBuildError`, `NotLocked`, `EngineUnavailable`, and
        the errors of pins, registries and the store.
        """
        nodes: list[Outcome] = []
        places: list[str] = []
        why = ""
        try:
            image = self._image(recipe, platform, label, nodes, places)
        except NotLocked as error:
            if not self._options.lenient:
                raise
            image, why = None, f"{error.what} yet"
        if image is None:
            missing = PlannedImage.of(nodes, node_names(recipe, platform)[len(nodes) :], why)
            for each in missing.nodes[len(nodes) :]:
                self._reporter.node_resolved(each)
            return missing
        return BuiltImage(image, tuple(dict.fromkeys(places)), nodes)

    def _image(
        self, recipe: Recipe, platform: str, label: str, nodes: list[Outcome], places: list[str]
    ) -> OciImage | None:
        """Build the image, or return None if a read-only build would have to build something.

        Outcomes are appended to `nodes`, and repositories that contain layers to `places`.
        """
        ground, python = self._ground(recipe, platform, nodes, places, label)
        if ground is None:
            return None
        if isinstance(ground, RegistryBase):
            places.append(ImageReference.parse(ground.pinned.reference).name.text)
        stages = stages_of(recipe)
        for at, (steps, execute) in enumerate(stages):
            last = at == len(stages) - 1
            if steps or last:  # The last one sets the variables and the working directory.
                plan = self._plan(recipe, steps, python, platform)
                name = stage_label(label, platform, len(stages) - 1 - at)
                node = self._node(
                    ground, plan, platform, name, latest_tag(label.rpartition(" ")[2], platform)
                )
                image = self._resolve(node, nodes, places)
                if image is None:
                    return None
                ground = LocalBase(image, self._sources.bases, self.fetch(places))
            if execute is not None:
                step = self._executed(
                    ground,
                    execute,
                    recipe,
                    platform,
                    stage_label(label, platform, len(stages) - 1 - at),
                    places,
                )
                image = self._resolve(step, nodes, places)
                if image is None:
                    return None
                ground = LocalBase(image, self._sources.bases, self.fetch(places))
        assert isinstance(ground, LocalBase)
        return ground.image

    def _ground(
        self, recipe: Recipe, platform: str, nodes: list[Outcome], places: list[str], label: str
    ) -> tuple[RegistryBase | LocalBase | None, str]:
        """Return the base of a recipe, and the minor version of the Python in it.

        The base is None if a read-only build would have to build it from a Dockerfile. The Python
        is "" if there is none, or if no packages need it.
        """
        match recipe.base.kind:
            case "debian":
                python = self._pins.python(recipe)
                return (
                    RegistryBase(
                        self._pins.base(self._options.debian.format(python=python)),
                        platform,
                        self._sources.bases,
                    ),
                    python,
                )
            case "reference":
                pinned = self._pins.base(recipe.base.uri)
                return RegistryBase(pinned, platform, self._sources.bases), (
                    self._pins.python(recipe) if recipe.sources else ""
                )
        file = recipe.base.file
        executor = self._needed(dockerfile_name(file))
        step = key(
            "step",
            FORMAT,
            {"dockerfile": os.path.basename(file), "context": self._contexts.of_dockerfile(file)},
        )
        name, label = dockerfile_name(file), stage_label(label, platform, -1)

        def execute() -> StepResult:
            image = executor.build(file, platform)
            return image, image.manifest.layers

        image = self._resolve(
            self._step_node(label, Step(name, step, platform, execute)), nodes, places
        )
        if image is None:
            return None, ""
        ground = LocalBase(image, self._sources.bases, self.fetch(places))
        interpreter = ground.load().interpreter
        return ground, interpreter.version if interpreter else ""

    def _plan(
        self, recipe: Recipe, steps: Sequence[Packages | Copy], python: str, platform: str
    ) -> Plan:
        found: list[LockedPackages | Copied] = []
        for step in steps:
            found.append(
                self._copier.collect(step)
                if isinstance(step, Copy)
                else self._pins.packages(recipe, python, platform)
            )
        return Plan(steps=found, env=recipe.env, workdir=recipe.workdir)

    def _node(
        self, ground: BaseSource, plan: Plan, platform: str, label: str, tag: str
    ) -> ImageNode:
        target = ImageTarget(ground, plan, platform, self._options.compression)
        offered = TaggedLayers(self._offers, tag, self._cache.blobs) if self._offers else None
        return ImageNode(label, target, self._cache, self._fetcher, self._reporter.note, offered)

    def _executed(
        self,
        ground: BaseSource,
        step: Execute,
        recipe: Recipe,
        platform: str,
        label: str,
        places: Sequence[str],
    ) -> StepNode:
        what = describe(step)
        # Debian packages depend on neither variables nor the working directory.
        env, workdir = ({}, "") if step.apt else (recipe.env, recipe.workdir)
        about: dict[str, Value] = {
            "on": ground.identity,
            "apt": step.apt,
            "commands": step.commands,
            "env": dict(env),
            "workdir": workdir,
        }
        if step.install:
            wanted = self._pins.wanted(recipe, "", platform)
            about["install"] = {
                "requirements": wanted.requirements,
                "files": dict(wanted.files),
                "options": _value(wanted.options),
            }
            if paths := local(step.install, self._root):
                about["sources"] = self._contexts.identity(paths)

        def execute() -> StepResult:
            base = ground.load().image
            image = self._needed(what).execute(base, step, env, workdir, self.fetch(places))
            return image, image.manifest.layers[len(base.manifest.layers) :]

        return self._step_node(
            f"{label} {what}", Step(what, key("step", FORMAT, about), platform, execute)
        )

    def _step_node(self, label: str, step: Step) -> StepNode:
        return StepNode(
            label,
            step,
            self._pins,
            StepStore(self._sources.kept, self._options.anew),
            self._cache,
            self._reporter.note,
        )

    def fetch(self, places: Sequence[str]) -> Fetch:
        """Return a function that fetches layers from repositories.

        `places` are these repositories, and may grow later.
        """

        def fetch(layers: Iterable[Descriptor]) -> None:
            LayerSources(
                self._cache,
                [self._sources.open_repository(RepositoryName.parse(place)) for place in places],
            ).bring(layers)

        return fetch

    def _needed(self, what: str) -> StepExecutor:
        if self._sources.executor is None:
            raise EngineUnavailable(
                f"Cannot execute a step of the image: {what}",
                why="No container engine is available.",
                hint="Start Docker, or use only packages and files, which do not need it.",
            )
        return self._sources.executor

    def _resolve(self, node: Node, nodes: list[Outcome], places: list[str]) -> OciImage | None:
        options = self._options
        resolver = Resolver(
            self._cache.records,
            self._reporter,
            remake=options.anew,
            read_only=options.read_only,
            remote=self._sources.remote,
        )
        outcome = resolver.resolve([node])[node]
        nodes += [*outcome.children, outcome]
        if outcome.record is None:
            return None
        if outcome.state == "made" or outcome.fetched:
            held = (
                [outcome.place]
                if outcome.fetched
                else node.places
                if isinstance(node, ImageNode)
                else []
            )
            self._cache.records.add_trace(
                outcome.record.key, outcome.record.key, {"why": outcome.why, "places": held}, 1
            )
        where = _seen(self._cache, outcome.record.key).get("places", [])
        if (
            isinstance(node, StepNode)
            and outcome.state == "cached"
            and not where
            and not self._options.read_only
        ):
            node.keep(outcome.record)  # The stored one was collected, or is another project's.
        places += where
        return OciImage.read(outcome.record.artifact, self._cache.blobs)


def reason(cache: Cache, of: Key) -> str:
    """Return why an image was built; "" if that is not recorded."""
    return str(_seen(cache, of).get("why", ""))


def _seen(cache: Cache, of: Key) -> Mapping[str, Any]:
    """Return what is recorded of an image's origin.

    `why` is the reason it was built, `places` are the repositories that contain layers of it.
    """
    return next((seen for _, seen in cache.records.traces(of, 1)), {})


def _value(options: Mapping[str, Any]) -> Value:
    """Return options as a value for a key."""
    return {
        name: list(value) if isinstance(value, list | tuple) else value
        for name, value in options.items()
    }
