"""Placement of tasks: in the current interpreter, in a local environment, or in a container.

It depends on the image of the task and on the requested engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from flyte_build.cas.digest import Digest
from flyte_build.errors import ImageBuildError
from flyte_build.images.image_choice import ImageChoice
from flyte_build.images.platforms import here, linux_here
from flyte_build.settings.table import EngineName

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker import APIClient

    from flyte_build.cas.cache import Cache
    from flyte_build.deployments.catalogue import FoundRelease
    from flyte_build.deployments.contents import DeploymentContents
    from flyte_build.deployments.document import Document
    from flyte_build.images.environments.node import EnvironmentNode
    from flyte_build.runner.call import Call

    from .container_images import ContainerImage
    from .session import Session

DEBIAN = ImageChoice({"base": {"step": "debian"}, "steps": []})
"""Image for containers of a task that declares no image."""


class Placement(NamedTuple):
    """Placement in a container of `image`, in a local `environment`, or else in this interpreter.

    If a container is needed but was not requested, `why` is the reason, as a phrase.
    """

    image: ImageChoice | None = None
    environment: EnvironmentNode | None = None
    why: str = ""


class ReadyPlace(NamedTuple):
    """Place that is ready: a container, the directory of a local environment, or this interpreter.

    `variables` are those of the image.
    """

    container: ContainerImage | None = None
    environment: str = ""
    variables: Mapping[str, str] = MappingProxyType({})

    def of(self, call: Call) -> tuple[Call, ContainerImage | None]:
        """Return a call at this place, with the image of its container, if it has one."""
        placed = call._replace(environment=self.environment, variables=self.variables)
        return placed, self.container


def place(
    name: str, image: ImageChoice, engine: EngineName, environment: Callable[[], EnvironmentNode]
) -> Placement:
    """Return the placement of tasks of the environment `name`.

    `environment` is called only if the local environment of the image matters. Raises
    `ImageBuildError` if the tasks must run in a process but their image needs a container.
    """
    if engine == "docker":
        return Placement(image=DEBIAN if image.is_host else image)
    if image.is_host:
        return Placement()
    if image.reference:
        node, refusal = None, f"the content of {image.reference} is only in its container"
    else:
        node = environment()
        refusal = node.refusal()
    if not refusal:
        return Placement(environment=node)
    if engine == "auto":
        return Placement(image=image, why=refusal)
    raise in_containers_only(name, refusal)


def in_containers_only(name: str, refusal: str) -> ImageBuildError:
    """Return the error for an image that cannot be installed as a local environment.

    `refusal` is the reason, as a phrase.
    """
    return ImageBuildError(
        f"The image of {name} cannot be installed as a local environment",
        why=f"{refusal[:1].upper()}{refusal[1:]}.",
        hint="Run the task in a container: --engine docker (or auto).",
    )


def bring(
    session: Session,
    found: FoundRelease,
    document: Document,
    contents: DeploymentContents,
) -> tuple[ReadyPlace, list[Digest]]:
    """Prepare the image of a deployment for the requested engine.

    Return the place of its tasks, and the digests that must not be collected meanwhile. Raises
    `ImageBuildError` and `EngineUnavailable`.
    """
    from flyte_build.deployments.runtime import wheels_of

    engine, cache, runtime = session.settings.engine, session.cache, document.value["environment"]
    if document.kind == "host":
        if engine != "docker":
            return ReadyPlace(), []
        raise ImageBuildError(
            f"{document.name} has no image",
            why="It was deployed to run in the host's interpreter.",
            hint="Deploy it with an image, for example image=flyte.Image.from_debian_base().",
        )
    refusal = _refusal(document)
    wheels = None if refusal else wheels_of(runtime, here(), found.release.wheels)
    if wheels is None:
        refusal = refusal or f"it has no packages for {here()}"
    if engine == "process" and refusal:
        raise in_containers_only(document.name, refusal)
    if engine != "docker" and wheels is not None:
        from flyte_build.images.environments.node import install
        from flyte_build.images.lock.uv import Uv
        from flyte_build.images.recipe import Recipe

        record = install(
            cache, runtime["python"], wheels, os.getcwd(), Uv(), session.reporter.bytes_moved
        )
        cache.records.add(record)
        made = record.artifact
        variables = Recipe.of(document.value["image"]).env
        return ReadyPlace(None, cache.environment(made), variables), [made]
    from flyte_build.images.docker.client import connect

    if engine == "auto":
        session.reporter.note(f"{document.name} runs in a container: {refusal}.")
    return ReadyPlace(_container(connect(), found, document, contents, cache)), []


def _refusal(document: Document) -> str:
    """Return why the image cannot be installed as a local environment, as a phrase, or ""."""
    runtime = document.value["environment"]
    if document.kind == "reference":
        return f"the content of {runtime['uri']} is only in its container"
    from flyte_build.images.environments.node import why_not_local
    from flyte_build.images.recipe import Recipe

    return why_not_local(Recipe.of(document.value["image"]), lambda: str(runtime["python"]))


def _container(
    client: APIClient,
    found: FoundRelease,
    document: Document,
    contents: DeploymentContents,
    cache: Cache,
) -> ContainerImage:
    from flyte_build.images.build.publisher import LayerSources
    from flyte_build.images.docker.load import load

    from .container_images import ContainerImage, by_digest

    runtime = document.value["environment"]
    if document.kind == "reference":
        return by_digest(client, runtime["uri"], Digest.parse(runtime["digest"]))
    identity = runtime["platforms"].get(linux_here())
    if identity is None:
        raise ImageBuildError(
            f"{document.name} has no image for {linux_here()}",
            why=f"It was deployed for {', '.join(runtime['platforms'])}.",
            hint=(
                'Declare more platforms for the image: platform=("linux/amd64", "linux/arm64");'
                " then deploy again."
            ),
        )
    image, repositories = contents.image(found, Digest.parse(identity))
    return ContainerImage(
        client, load(client, image.manifest, cache.blobs, LayerSources(cache, repositories).bring)
    )
