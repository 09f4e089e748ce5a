"""Images of a project's containers: found in this machine's engine, pulled by digest, or built."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record
from flyte_build.cas.traces import recall
from flyte_build.errors import ImageBuildError, NotFound, RegistryError, StoreError
from flyte_build.graph.node import Made, Node, Outcome, Outcomes, Resolve
from flyte_build.images.docker.client import asking, connect
from flyte_build.images.docker.load import has, load
from flyte_build.images.image_choice import ImageChoice
from flyte_build.images.platforms import linux_here
from flyte_build.runner.engines.containers import Place, remove_orphans
from flyte_build.runner.engines.docker import DockerEngine
from flyte_build.runner.engines.fork_servers import can_fork

from .session import Session

if TYPE_CHECKING:
    from docker import APIClient

    from flyte_build.images.lock.project_lock import Pins
    from flyte_build.images.recipe import Recipe

    from .project_images import EnvironmentImage, Imager

_KEPT = 16  # Remembered states of flyte.lock and of requirements files, per image.


class ContainerImages:
    """Images that tasks of the project at `root` run in.

    `pins` is called only when a pin must be looked up. `outcomes` collects the outcomes of images.
    """

    def __init__(self, session: Session, root: str, pins: Callable[[], Pins]) -> None:
        self._session, self._root, self._pins = session, root, pins
        self.outcomes: list[Outcome] = []
        self._made: list[tuple[Imager, EnvironmentImage]] = []

    def publish(self) -> None:
        """Publish the images that were built, if that is configured; failures are only noted."""
        for imager, made in self._made:
            try:
                imager.publish(made)
            except (RegistryError, StoreError) as error:
                late = "Publish it later with `flyte build --push`"
                self._session.reporter.note(
                    f"The image of {made.envs[0]} was not published: {error.what}. {late}."
                )

    def get(self, image: ImageChoice, environment: str) -> ContainerImage:
        """Find, pull or build the image of an environment, so that this machine's engine has it.

        Raises `ImageBuildError`, `NotLocked`, `RegistryError`, `EngineUnavailable`.
        """
        if image.reference:
            return self._pulled(image.reference)
        began = time.perf_counter()
        known = self._known(image)
        if known:
            found = json.loads(self._session.cache.blobs.read(known.artifact))["config"]["digest"]
            client = connect()
            if has(client, found):
                outcome = Outcome(
                    _Known(environment),
                    "cached",
                    known,
                    known.key,
                    "",
                    time.perf_counter() - began,
                )
                self.outcomes.append(outcome)
                self._session.reporter.node_resolved(outcome)
                return ContainerImage(client, found)
        return self._built(image, environment)

    def _pulled(self, uri: str) -> ContainerImage:
        from flyte_build.images.reference import ImageReference

        reference = ImageReference.parse(uri)
        if reference.digest:
            return by_digest(connect(), reference.name.text, reference.digest)
        pins = self._pins()
        digest = pins.base(uri).digest
        pins.save()
        return by_digest(connect(), reference.name.text, digest)

    def _built(self, image: ImageChoice, environment: str) -> ContainerImage:
        from .project_images import Imager

        recipe, pins = image.recipe, self._pins()
        if recipe.platforms and linux_here() not in recipe.platforms:
            raise ImageBuildError(
                f"The image of {environment} is for {' and '.join(recipe.platforms)}",
                why=f"Containers on this machine run {linux_here()}.",
                hint=f'Declare both: platform=("{linux_here()}", "{recipe.platforms[0]}").',
            )
        imager = Imager(self._session, self._root, pins)
        built = imager.build(replace(recipe, platforms=()), [environment])
        pins.save()
        self.outcomes += built.nodes
        if any(each.state == "made" for each in built.nodes):
            self._made.append((imager, built))
        (one,) = built.images.values()
        if not _reads_files(recipe, self._root):
            self._session.cache.records.add_trace(
                self._base(image), one.record.key, self._seen(recipe, pins), _KEPT
            )
        client = connect()
        return ContainerImage(
            client, load(client, one.image.manifest, self._session.cache.blobs, imager.fetch(one))
        )

    def _base(self, image: ImageChoice) -> Key:
        """Return the base key under which traces of an image are stored.

        The traces add the digests of flyte.lock and of the files that the image names.
        """
        settings = self._session.settings
        about: dict[str, Value] = {
            "image": image.text,
            "machine": os.uname().machine,
            "root": self._root,
            "base": settings.image_base,
            "compression": settings.image_compression,
        }
        return key("container", 1, about)

    def _known(self, image: ImageChoice) -> Record | None:
        """Find the image's record for the current flyte.lock and files, without parsing them.

        None if there is no such record, or if some of its blobs are gone.
        """
        cache = self._session.cache
        record = recall(cache.records, self._base(image), self._root, _KEPT)
        return record if record and cache.blobs.has_all(record.refs) else None

    def _seen(self, recipe: Recipe, pins: Pins) -> Mapping[str, Digest]:
        """Return the current digests of the files that determine the image, by path."""
        known = pins.known()
        if recipe.sources:
            known.wanted(recipe, "", "")
        known.python(recipe)
        return known.seen


class _Known(Node):
    """Stand-in node for the outcome of an image that was found without resolving its nodes."""

    kind = "image"

    def __init__(self, name: str) -> None:
        super().__init__(name, f"image:{name}")

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """Return nothing: this node is never resolved."""
        return {}

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Raise `AssertionError`: this node is never built."""
        raise AssertionError("A found image is never built")


def _reads_files(recipe: Recipe, root: str) -> bool:
    """Whether files of the project at `root` go into the image: they must be read each time."""
    from flyte_build.images.docker.install import local
    from flyte_build.images.recipe import Copy, Execute

    if recipe.base.kind == "dockerfile":
        return True
    return any(
        isinstance(step, Copy) or (isinstance(step, Execute) and bool(local(step.install, root)))
        for step in recipe.steps
    )


@dataclass(frozen=True)
class ContainerImage:
    """An image in the engine of `client`; `reference` is its id, or its name and digest."""

    client: APIClient
    reference: str


def by_digest(client: APIClient, name: str, digest: Digest) -> ContainerImage:
    """Return the image with that name and manifest digest, pulled only if the engine lacks it.

    Raises `ImageBuildError`.
    """
    from docker.errors import APIError
    from docker.errors import NotFound as Absent

    pinned = f"{name}@{digest}"
    if not has(client, pinned):
        with asking("pull an image"):
            try:
                client.pull(name, tag=digest)
            except Absent:
                raise ImageBuildError(
                    f"The image {pinned} does not exist",
                    hint="Push it, or pin another one with `flyte lock --upgrade`.",
                ) from None
            except APIError as error:
                raise ImageBuildError(
                    f"Docker cannot pull {pinned}", why=str(error.explanation or error)
                ) from None
    return ContainerImage(client, pinned)


def docker_engine(session: Session, image: ContainerImage) -> DockerEngine:
    """Return an engine that runs tasks in containers of `image`.

    Containers that earlier commands left behind are removed first.
    """
    client, stores = image.client, session.stores
    history = stores.history

    def is_going(run: str) -> bool:
        try:
            return history.going(run)
        except NotFound:
            return False

    remove_orphans(client, history.identity, is_going)
    place = Place(
        image=image.reference,
        runtime=stores.runtime,
        store=history.identity,
        network=session.settings.network,
    )
    return DockerEngine(place, session.reporter, client, shares=can_fork())
