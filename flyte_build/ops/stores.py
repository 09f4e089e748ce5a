"""What a command opens on this machine and elsewhere, each thing when it is first used."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from flyte_build.cas.counters import Counters
from flyte_build.cas.folder import make_own, make_private
from flyte_build.cas.os_errors import storing
from flyte_build.runner.history.history import History
from flyte_build.runner.reporter import RunReporter
from flyte_build.settings.places import Places

if TYPE_CHECKING:
    from flyte_build.cas.cache import Cache
    from flyte_build.cas.registry.pool import RepositoryPool


class Stores:
    """The cache and the history of this machine, and the repositories that are asked; nothing is
    opened before it is used.
    """

    def __init__(
        self, reporter: RunReporter, places: Places | None = None, counters: Counters | None = None
    ) -> None:
        self.reporter = reporter
        self.places = places or Places.find()
        self.counters = counters or Counters()
        self._cache: Cache | None = None
        self._history: History | None = None

    @property
    def history(self) -> History:
        """The history; runs that had lost their command are ended when it is opened."""
        if self._history is None:
            self._own(self.places.data)
            self._history = History.open(self.places.data, self.reporter.note)
            for name in self._history.end_orphans():
                self.reporter.note(f"The run {name} had lost its command; it is marked as failed.")
        return self._history

    @property
    def cache(self) -> Cache:
        """The cache."""
        if self._cache is None:
            from flyte_build.cas.cache import Cache

            self._own(self.places.cache)
            self._cache = Cache.open(self.places.cache, self.counters, self.reporter.note)
        return self._cache

    @cached_property
    def repositories(self) -> RepositoryPool:
        """The repositories, in one pool."""
        from flyte_build.cas.registry.pool import RepositoryPool

        return RepositoryPool(self.counters)

    @cached_property
    def runtime(self) -> str:
        """The directory of our own package for tasks in environments and containers; who uses it
        holds a lease on its name.
        """
        from flyte_build.images.layers import runtime

        return runtime.folder(self.cache)

    def _own(self, folder: str) -> None:
        """Make a directory, new or not, private to the user, unless several users share it."""
        with storing("make the store's directory"):
            if not os.path.isdir(folder):
                make_own(folder, shared=self.places.shared)
            elif not self.places.shared:
                make_private(folder)

    def beside(self) -> Stores:
        """The same places with connections of their own, for another thread; counters and
        repositories are shared.
        """
        stores = Stores(self.reporter, self.places, self.counters)
        stores.repositories = self.repositories
        return stores

    def close(self) -> None:
        """Close what is open; the process's end does so too."""
        if self._history:
            self._history.close()
        if self._cache:
            self._cache.database.close()
