"""The session of a command: what it was told, whom it tells, and what it opens."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from flyte_build.runner.reporter import RunReporter
from flyte_build.settings.settings import Settings

from .sharing import Sharing
from .stores import Stores

if TYPE_CHECKING:
    from flyte_build.cas.cache import Cache


class Session:
    """One command by its settings. A `read_only` one makes nothing that costs, changes nothing, and
    says what it would do.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        *,
        read_only: bool = False,
        reporter: RunReporter | None = None,
    ) -> None:
        self.settings, self.stores, self.read_only = settings, stores, read_only
        self.reporter = reporter or stores.reporter

    @property
    def cache(self) -> Cache:
        """The cache of this machine."""
        return self.stores.cache

    @cached_property
    def sharing(self) -> Sharing:
        """What is shared with other machines."""
        settings = self.settings
        return Sharing(self.stores, settings.registries, settings.run.project, self.reporter)
