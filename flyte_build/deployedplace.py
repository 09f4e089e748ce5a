"""What a deployed task runs in, brought to this machine: the local environment of its image, or a container. No sources are needed."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from flyte_build.cas.digest import Digest
from flyte_build.errors import ImageBuildError
from flyte_build.images.platforms import here, linux_here

from .deployments.catalogue import Catalogue, Found
from .deployments.document import Document
from .deployments.runtime import wheels_of
from .graph.reporter import Listener
from .placement import in_containers_only
from .runner.call import Call
from .settings.table import EngineName
from .stores import Stores

if TYPE_CHECKING:
    from docker import APIClient

    from .containers import ContainerImage


def bring(
    call: Call, engine: EngineName, found: Found, document: Document, catalogue: Catalogue, stores: Stores, listener: Listener
) -> "tuple[Call, ContainerImage | None, list[Digest]]":
    """The call as it is to be run, the image of its container (None: it runs in a process), and what must not be collected meanwhile.

    The engine that is asked for decides, and the image. Raises `ImageBuildError`, and `EngineUnavailable`.
    """
    runtime = document.value["environment"]
    if document.kind == "host":
        if engine != "docker":
            return call, None, []
        raise ImageBuildError(
            f"{document.name} has no image",
            why="It was deployed to run in the interpreter at hand.",
            hint="Deploy it with an image, as in image=flyte.Image.from_debian_base().",
        )
    refusal = _refusal(document)
    wheels = None if refusal else wheels_of(runtime, here(), found.release.wheels)
    if wheels is None:
        refusal = refusal or f"it has no packages for {here()}"
    if engine == "process" and refusal:
        raise in_containers_only(document.name, refusal)
    if engine != "docker" and wheels is not None:
        from flyte_build.images.recipe import Recipe

        from .images.environments.node import install
        from .images.lock.uv import Uv

        record = install(stores.cache, runtime["python"], wheels, os.getcwd(), Uv())
        stores.cache.records.add(record)
        made = record.artifact
        variables = Recipe.of(document.value["image"]).env
        return replace(call, environment=stores.cache.environment(made), variables=variables), None, [made]
    from .images.docker.client import connect

    if engine == "auto":
        listener.said(f"{document.name} runs in a container: {refusal}.")
    return call, _container(connect(), found, document, catalogue, stores), []


def _refusal(document: Document) -> str:
    """Why the image cannot be an environment of this machine, as a phrase; "" if it can."""
    runtime = document.value["environment"]
    if document.kind == "reference":
        return f"what is in {runtime['uri']} is only in its container"
    from flyte_build.images.recipe import Recipe

    from .images.environments.node import why_not_local

    return why_not_local(Recipe.of(document.value["image"]), lambda: str(runtime["python"]))


def _container(client: "APIClient", found: Found, document: Document, catalogue: Catalogue, stores: Stores) -> "ContainerImage":
    from .containers import ContainerImage, by_digest
    from .images.build.publisher import LayerSources
    from .images.docker.load import load

    runtime = document.value["environment"]
    if document.kind == "reference":
        return by_digest(client, runtime["uri"], Digest.parse(runtime["digest"]))
    identity = runtime["platforms"].get(linux_here())
    if identity is None:
        raise ImageBuildError(
            f"{document.name} has no image for {linux_here()}",
            why=f"It was deployed for {', '.join(runtime['platforms'])}.",
            hint='Name more platforms in the image, as in platform=("linux/amd64", "linux/arm64"), and deploy again.',
        )
    image, repositories = catalogue.image(found, Digest.parse(identity))
    return ContainerImage(client, load(client, image.manifest, stores.cache.blobs, LayerSources(stores.cache, repositories).bring))
