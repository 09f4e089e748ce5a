"""Dependencies and options of an image builder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from flyte_build.cas.layer import Compression
from flyte_build.graph.node import RemoteCache
from flyte_build.images.docker.load import Fetch
from flyte_build.images.lock.pins import LockedPackages, PinnedBase, Wanted
from flyte_build.images.oci_image import OciImage
from flyte_build.images.recipe import Execute, Recipe

from .base import Bases, Open
from .nodes import Offers
from .step_node import PinnedSteps
from .step_results import StepResults


class Pinned(PinnedSteps, Protocol):
    """Pins of a project; missing ones are looked up, unless it is locked."""

    def python(self, recipe: Recipe) -> str:
        """Return the minor version of the Python in an image."""

    def packages(self, recipe: Recipe, python: str, platform: str) -> LockedPackages:
        """Return the locked packages of an image."""

    def wanted(self, recipe: Recipe, python: str, platform: str) -> Wanted:
        """Return the request for an image's packages, for one Python and one platform."""

    def base(self, reference: str) -> PinnedBase:
        """Return the pin of a base image."""


class Others(RemoteCache, Offers, Protocol):
    """A remote cache, which also offers layers of its images."""


class StepExecutor(Protocol):
    """Executor of build steps: a container engine."""

    def execute(
        self, base: OciImage, step: Execute, env: Mapping[str, str], workdir: str, fetch: Fetch
    ) -> OciImage:
        """Execute a step on top of an image, and return the resulting image.

        `workdir` may be "" for the image's own. Layers that the step adds are on this machine then;
        `fetch` fetches those of `base`.
        """

    def build(self, file: str, platform: str) -> OciImage:
        """Build a Dockerfile, and return the image."""


@dataclass(frozen=True, kw_only=True)
class BuildSources:
    """Sources of what images are built from.

    `kept` stores results of executed steps, `remote` is a cache shared with other machines.
    """

    bases: Bases
    open_repository: Open
    kept: StepResults
    executor: StepExecutor | None = None
    remote: Others | None = None


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of a build.

    `debian` is the reference of the Debian base, with the placeholder `{python}`. `anew` builds
    and executes everything again; `read_only` builds nothing, and with `lenient` a missing pin
    counts as a missing image.
    """

    debian: str
    compression: Compression = "gzip"
    anew: bool = False
    read_only: bool = False
    lenient: bool = False
