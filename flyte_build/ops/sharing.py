"""Sharing of artifacts with repositories: lookups, and publishing in the background.

Repositories are opened at their first use: a command that finds everything on this machine sends no
request, and loads no client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.records import Record
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.errors import FlyteError
from flyte_build.graph.reporter import Reporter
from flyte_build.settings.registries import Registries

from .stores import Stores

if TYPE_CHECKING:
    from threading import Thread

    from flyte_build.cas.registry.ledger import Ledger
    from flyte_build.cas.registry.shared_cache import Offer, SharedCache

Progress = Callable[[int, int], None]


class Sharing:
    """Exchange of artifacts with the repositories in `registries`, for one `project`.

    The reporter gets the number of moved bytes, but for publishing only while `finish` waits for
    it.
    """

    def __init__(
        self, stores: Stores, registries: Registries, project: str, reporter: Reporter
    ) -> None:
        self._stores, self._registries, self._project, self._reporter = (
            stores,
            registries,
            project,
            reporter,
        )
        self._publishing: Thread | None = None
        self._awaited = False
        self._published: list[Record] = []

    @cached_property
    def shared(self) -> SharedCache:
        """The shared cache, which stores what it fetches in the local cache."""
        return self._over(self._stores.cache, self._reporter.bytes_moved)

    def _over(self, cache: Cache, progress: Progress) -> SharedCache:
        from flyte_build.cas.registry.shared_cache import SharedCache, Shares

        reads = [name for name in self._registries.reads if str(name) not in self._away]
        shares = Shares(reads, self._registries.write, self._project)
        return SharedCache(cache, self._stores.repositories, shares, self._reporter.note, progress)

    @cached_property
    def _away(self) -> set[str]:
        """Repositories that were recently unreachable, and are not contacted for now."""
        return (
            set(self._ledger().away())
            if self._registries.reads or self._registries.write
            else set()
        )

    @property
    def _is_alone(self) -> bool:
        """Whether there is no repository to look anything up in."""
        return all(str(name) in self._away for name in self._registries.reads)

    def ask_again(self) -> None:
        """Contact all repositories again, including recently unreachable ones."""
        names = [
            *self._registries.reads,
            *([self._registries.write] if self._registries.write else []),
        ]
        self._ledger().come_back(map(str, names))

    def connect(self) -> None:
        """Load the clients of the repositories, without sending anything."""
        if not self._is_alone:
            self.shared  # noqa: B018  # A cached property.

    def find(self, key: Key) -> Offer | None:
        """Find a remote copy of the artifact for `key`, without fetching it."""
        return None if self._is_alone else self.shared.find(key)

    def fetch(
        self, key: Key, accept: Callable[[Digest], tuple[Digest, ...]], whole: bool = True
    ) -> tuple[Record, str] | None:
        """Fetch the artifact for `key`, if there is a remote copy; return its record and its place.

        Unless `whole`, its layers are not fetched. `accept` is as for `RemoteCache.fetch`.
        """
        return None if self._is_alone else self.shared.fetch(key, accept, whole)

    def tagged(self, tag: str) -> Iterable[tuple[Digest, str]]:
        """Pull the manifests under a tag, and yield each with its repository's name.

        Their configs are pulled, too, but not their layers.
        """
        return () if self._is_alone else self.shared.tagged(tag)

    def lacking(
        self, artifacts: Mapping[Key, Digest | None], *, anywhere: bool, forget: bool
    ) -> set[Key]:
        """Return the keys whose artifact is missing from the repository that is written to.

        The repository is asked, whatever was published to it before. With `anywhere`, keys are left
        out if any repository that is read has their artifact. `artifacts` holds the local artifacts
        where they are known. With `forget`, earlier publications of the returned keys are
        forgotten, so that they are published again. Raises `RegistryError` if the repository fails.
        """
        write = self._registries.write
        if write is None:
            return set()
        found = self.shared.lacking(artifacts, anywhere)
        if found and forget:
            ledger = self._ledger()
            ledger.forget(write)
            for key in found:
                ledger.drop(write, key)
        return found

    def _ledger(self) -> Ledger:
        return Ledger(self._stores.cache.database)

    def publish(self, records: Iterable[Record], *, alone: bool = False) -> None:
        """Start publishing those of the records that are due; `finish` waits for it.

        Unless `alone`, records that earlier commands could not publish are published as well.
        """
        write = self._registries.write
        if write is None:
            return
        if self._publishing:  # Records in transit still count as owed.
            self._publishing.join()
        ledger = self._ledger()
        due, owed = (
            [record.key for record in records if ledger.is_due(write, record.key)],
            set(ledger.owed(write)),
        )
        for key in due:
            if key not in owed:
                ledger.owe(write, key)
        if str(write) in ledger.away():  # Possibly since a moment ago.
            return
        if keys := due if alone else ledger.owed(write):
            from threading import Thread

            self._publishing = Thread(target=self._publish, args=(keys,), daemon=True)
            self._publishing.start()

    def _publish(self, keys: Iterable[Key]) -> None:
        """Publish records from a thread, with a separate database connection."""
        try:
            stores = self._stores.beside()
            with stores.cache.preparing():
                self._published += self._over(stores.cache, self._progress_if_awaited).publish(keys)
            stores.close()
        except FlyteError as error:
            self._reporter.note(f"Artifacts will be published by a later command: {error.what}.")

    def _progress_if_awaited(self, done: int, total: int) -> None:
        if self._awaited:
            self._reporter.bytes_moved(done, total)

    def finish(self) -> list[Record]:
        """Wait for everything that `publish` started, and return the published records."""
        if self._publishing:
            self._awaited = True
            self._publishing.join()
            self._publishing = None
        published, self._published = self._published, []
        return published
