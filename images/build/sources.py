"""What images are built from, and how: what a builder is given."""

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
    """What is pinned for a project; what is not is looked up, unless it is locked."""

    def python(self, recipe: Recipe) -> str:
        """The minor version of Python that an image means."""

    def packages(self, recipe: Recipe, python: str, platform: str) -> LockedPackages:
        """The locked packages of an image."""

    def wanted(self, recipe: Recipe, python: str, platform: str) -> Wanted:
        """What is asked for, for a Python and a platform."""

    def base(self, reference: str) -> PinnedBase:
        """What a reference names."""


class Others(RemoteCache, Offers, Protocol):
    """What other machines have made, and its layers."""


class StepExecutor(Protocol):
    """What executes steps: a container engine."""

    def execute(
        self, base: OciImage, step: Execute, env: Mapping[str, str], workdir: str, fetch: Fetch
    ) -> OciImage:
        """The image that a step makes of another, with these variables, in that directory ("": the
        image's own); what it adds is on this

        machine then. `fetch` brings layers of the other one.
        """

    def build(self, file: str, platform: str) -> OciImage:
        """The image that a Dockerfile makes."""


@dataclass(frozen=True, kw_only=True)
class BuildSources:
    """Where comes from what images are made of: `kept` has what executing steps came to, `remote`
    what other machines have made.
    """

    bases: Bases
    open_repository: Open
    kept: StepResults
    executor: StepExecutor | None = None
    remote: Others | None = None


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build. `debian` is the reference of the Debian base, with `{python}` in it.

    `anew` makes again, and executes again, what is there; `read_only` makes nothing.
    """

    debian: str
    compression: Compression = "gzip"
    anew: bool = False
    read_only: bool = False
