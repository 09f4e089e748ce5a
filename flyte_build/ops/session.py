"""Where things are kept on this machine: the cache, and the history of runs."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from flyte_build.cas.counters import Counters
from flyte_build.cas.folder import make_own, make_private
from flyte_build.cas.os_errors import storing
from flyte_build.graph.reporter import Listener
from flyte_build.runner.history.history import History
from flyte_build.settings.places import Places

if TYPE_CHECKING:
    from flyte_build.cas.cache import Cache


class Stores:
    """The cache and the history of this machine; runs that had lost their command are ended on the way."""

    def __init__(self, listener: Listener, places: Places | None = None, counters: Counters | None = None) -> None:
        self.places = places or Places.find()
        self.counters = counters or Counters()
        self._listener = listener
        self._own(self.places.data)
        self.history = History(self.places.data, listener.said)
        for name in self.history.end_orphans():
            listener.said(f"The run {name} had lost its command; it is marked as failed.")

    @cached_property
    def cache(self) -> "Cache":
        """The cache, opened when it is first used."""
        from flyte_build.cas.cache import Cache

        self._own(self.places.cache)
        return Cache(self.places.cache, self.counters, self._listener.said)

    def _own(self, folder: str) -> None:
        """Make a folder the user's own, unless several share it: also one that is there already."""
        with storing("make the store's folder"):
            if not os.path.isdir(folder):
                make_own(folder, shared=self.places.shared)
            elif not self.places.shared:
                make_private(folder)

    @cached_property
    def runtime(self) -> str:
        """The folder of our own package for tasks in environments and containers; who uses it holds a lease on its name."""
        from flyte_build.images.layers import runtime

        return runtime.folder(self.cache)

    def close(self) -> None:
        """Close what is open; the process's end does so too."""
        self.history.close()
        if "cache" in self.__dict__:
            self.cache.database.close()
