"""Containers of this machine's Docker Engine for tasks: the image that a task runs in, and the engine that runs it there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyte_build.cas.digest import Digest
from flyte_build.errors import ImageBuildError, NotFound

from .images.docker import load
from .images.docker.client import asking
from .runner.call import Call
from .runner.engines.docker import DockerEngine, Place, remove_orphans
from .runner.engines.limits import Limits
from .runner.secrets import look_up
from .stores import Stores

if TYPE_CHECKING:
    from docker import APIClient

    from .runner.engines.protocol import Sink


@dataclass(frozen=True)
class ContainerImage:
    """An image that the engine of a `client` has, under an id or a name and digest."""

    client: "APIClient"
    reference: str


def by_digest(client: "APIClient", name: str, digest: Digest) -> ContainerImage:
    """An image by its name and its manifest's digest; it is pulled only if the engine has not got it. Raises `ImageBuildError`."""
    from docker.errors import APIError
    from docker.errors import NotFound as Absent

    pinned = f"{name}@{digest}"
    if not load.has(client, pinned):
        with asking("pull an image"):
            try:
                client.pull(name, tag=digest)
            except Absent:
                raise ImageBuildError(f"There is no image {pinned}", hint="Push it, or pin another one: `flyte lock --upgrade`.") from None
            except APIError as error:
                raise ImageBuildError(f"Docker could not pull {pinned}", why=str(error.explanation or error)) from None
    return ContainerImage(client, pinned)


def docker_engine(call: Call, stores: Stores, image: ContainerImage, network: str, sink: "Sink") -> DockerEngine:
    """The engine that runs a call in containers of `image`. What earlier commands have left running ends here."""
    client, history = image.client, stores.history

    def is_going(run: str) -> bool:
        try:
            return history.going(run)
        except NotFound:
            return False

    remove_orphans(client, history.identity, is_going)
    options = call.task["options"]
    place = Place(
        image=image.reference,
        runtime=stores.runtime,
        store=history.identity,
        network=network,
        limits=Limits.of(options.get("resources") or {}),
        secrets=look_up(options.get("secrets"), os.environ),
    )
    return DockerEngine(place, sink, client)
