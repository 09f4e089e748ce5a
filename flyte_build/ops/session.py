"""Session of a command: its settings, its reporter, and its stores."""

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
    """Settings, stores and reporter of one command.

    A `read_only` session builds and changes nothing; it shows what would be done.
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
        """The local cache."""
        return self.stores.cache

    @cached_property
    def sharing(self) -> Sharing:
        """Exchange of artifacts with the configured repositories."""
        settings = self.settings
        return Sharing(self.stores, settings.registries, settings.run.project, self.reporter)
