"""Stores of a command, local and remote; each is opened at its first use."""

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
    from flyte_build.cas.digest import Digest
    from flyte_build.cas.registry.pool import RepositoryPool


class Stores:
    """The local cache and history, and the remote repositories, each opened at its first use."""

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
        """The history of runs; opening it ends the runs whose commands are gone."""
        if self._history is None:
            self._own(self.places.data)
            self._history = History.open(self.places.data, self.reporter.note)
            for name in self._history.end_orphans():
                self.reporter.note(
                    f"The command of the run {name} is gone; the run is marked as failed."
                )
        return self._history

    @property
    def cache(self) -> Cache:
        """The local cache."""
        if self._cache is None:
            from flyte_build.cas.cache import Cache

            self._own(self.places.cache)
            self._cache = Cache.open(self.places.cache, self.counters, self.reporter.note)
        return self._cache

    @cached_property
    def repositories(self) -> RepositoryPool:
        """Pool of the remote repositories."""
        from flyte_build.cas.registry.pool import RepositoryPool

        return RepositoryPool(self.counters)

    @cached_property
    def runtime(self) -> str:
        """Directory with flyte-build itself, for tasks in local environments and containers.

        A user of the directory must hold a lease on its digest.
        """
        from flyte_build.images.layers import runtime

        return runtime.folder(self.cache)

    @property
    def runtime_digest(self) -> Digest:
        """Digest to hold a lease on while `runtime` is used."""
        from flyte_build.cas.digest import Digest

        return Digest("sha256:" + os.path.basename(self.runtime))

    def _own(self, folder: str) -> None:
        """Make a directory, new or not, private to the user, unless several users share it."""
        with storing("create the store's directory"):
            if not os.path.isdir(folder):
                make_own(folder, shared=self.places.shared)
            elif not self.places.shared:
                make_private(folder)

    def beside(self) -> Stores:
        """Return stores with separate connections to the same places, for another thread.

        Counters and repositories are shared.
        """
        stores = Stores(self.reporter, self.places, self.counters)
        stores.repositories = self.repositories
        return stores

    def close(self) -> None:
        """Close everything that is open; the end of the process also does this."""
        if self._history:
            self._history.close()
        if self._cache:
            self._cache.database.close()
