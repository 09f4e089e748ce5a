"""Where a task runs: in the interpreter at hand, in a local environment, or in a container; its image and the engine asked for decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flyte_build.errors import ImageBuildError

from .settings.table import EngineName

if TYPE_CHECKING:
    from collections.abc import Callable

    from .images.environments.node import EnvironmentNode

DEBIAN = {"base": {"step": "debian"}, "steps": []}
"""The image of a task that names none, where it runs in a container all the same."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """In a container of an `image` (a JSON value; None: in none), or in the `environment` (None: in the interpreter at hand).

    `why` says, as a phrase, why it had to be a container, where nobody has asked for one.
    """

    image: Any = None
    environment: "EnvironmentNode | None" = None
    why: str = ""


def place(name: str, image: Any, engine: EngineName, environment: "Callable[[], EnvironmentNode]") -> Placement:
    """Where the tasks of the environment `name` run; a declared image's local environment is asked for if it matters.

    Raises `ImageBuildError` where they shall run in a process and their image is in containers only.
    """
    if engine == "docker":
        return Placement(image=DEBIAN if image == "auto" else image)
    if image == "auto":
        return Placement()
    if isinstance(image, str):
        node, refusal = None, f"what is in {image} is only in its container"
    else:
        node = environment()
        refusal = node.refusal()
    if not refusal:
        return Placement(environment=node)
    if engine == "auto":
        return Placement(image=image, why=refusal)
    raise in_containers_only(name, refusal)


def in_containers_only(name: str, refusal: str) -> ImageBuildError:
    """The error of an environment whose image cannot be had on this machine itself, for that reason."""
    return ImageBuildError(
        f"The image of {name} cannot be had as an environment of this machine",
        why=f"{refusal[:1].upper()}{refusal[1:]}.",
        hint="Run it in a container: --engine docker (or auto).",
    )
