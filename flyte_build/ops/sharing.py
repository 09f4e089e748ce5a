"""Sharing what is prepared, as configured: looking in repositories, and publishing while something
else is done.

Repositories are opened when something is asked of them: a command that finds all on this machine
sends nothing, and loads no client.
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
    """Some repositories, for a `project` that publishes to them.

    The reporter is told how many bytes were moved, but not while the command does something else
    meanwhile.
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
        """The shared cache over this command's cache."""
        return self._over(self._stores.cache, self._reporter.bytes_moved)

    def _over(self, cache: Cache, progress: Progress) -> SharedCache:
        from flyte_build.cas.registry.shared_cache import SharedCache, Shares

        reads = [name for name in self._registries.reads if str(name) not in self._away]
        shares = Shares(reads, self._registries.write, self._project)
        return SharedCache(cache, self._stores.repositories, shares, self._reporter.note, progress)

    @cached_property
    def _away(self) -> set[str]:
        """The repositories that could not be reached a short time ago: they are left alone, and
        cost nothing.
        """
        return (
            set(self._ledger().away())
            if self._registries.reads or self._registries.write
            else set()
        )

    @property
    def _is_alone(self) -> bool:
        """Whether there is nobody to look anything up at."""
        return all(str(name) in self._away for name in self._registries.reads)

    def ask_again(self) -> None:
        """Leave no repository alone: the command is about them."""
        names = [
            *self._registries.reads,
            *([self._registries.write] if self._registries.write else []),
        ]
        self._ledger().come_back(map(str, names))

    def connect(self) -> None:
        """Load the clients of the repositories; nothing is sent."""
        if not self._is_alone:
            self.shared  # noqa: B018  # A property that is kept.

    def find(self, key: Key) -> Offer | None:
        """Who has what `key` produced; nothing is fetched."""
        return None if self._is_alone else self.shared.find(key)

    def fetch(
        self, key: Key, accept: Callable[[Digest], tuple[Digest, ...]], whole: bool = True
    ) -> tuple[Record, str] | None:
        """Fetch what `key` produced, if anyone has it; without its layers unless `whole`."""
        return None if self._is_alone else self.shared.fetch(key, accept, whole)

    def tagged(self, tag: str) -> Iterable[tuple[Digest, str]]:
        """The manifests under a tag, each with the repository where it is; they and their configs
        are here then.
        """
        return () if self._is_alone else self.shared.tagged(tag)

    def lacking(
        self, artifacts: Mapping[Key, Digest | None], *, anywhere: bool, forget: bool
    ) -> set[Key]:
        """Those of some keys whose artifact the repository that is written to has not, whatever
        this machine remembers.

        With `anywhere`, those whose artifact no other repository that is read has either. The
        artifacts here are given, if known.

        With `forget` it remembers that no more, so that they are published again. Raises
        `RegistryError` if it cannot be told.
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
        """Begin to publish these records, if they are due, and unless `alone` what an earlier
        command could not; `finish` waits for it.
        """
        write = self._registries.write
        if write is None:
            return
        if self._publishing:  # What is on its way is owed until it is there.
            self._publishing.join()
        ledger = self._ledger()
        due, owed = (
            [record.key for record in records if ledger.is_due(write, record.key)],
            set(ledger.owed(write)),
        )
        for key in due:
            if key not in owed:
                ledger.owe(write, key)
        if str(write) in ledger.away():  # Also if that was found out a moment ago.
            return
        if keys := due if alone else ledger.owed(write):
            from threading import Thread

            self._publishing = Thread(target=self._publish, args=(keys,), daemon=True)
            self._publishing.start()

    def _publish(self, keys: Iterable[Key]) -> None:
        """In a thread, with a database connection of its own: the other is used meanwhile."""
        try:
            stores = self._stores.beside()
            with stores.cache.preparing():
                self._published += self._over(stores.cache, self._progress_if_awaited).publish(keys)
            stores.close()
        except FlyteError as error:
            self._reporter.note(f"What was prepared is published by a later command: {error.what}.")

    def _progress_if_awaited(self, done: int, total: int) -> None:
        if self._awaited:
            self._reporter.bytes_moved(done, total)

    def finish(self) -> list[Record]:
        """Wait until all is published that `publish` has begun to; gives what that was."""
        if self._publishing:
            self._awaited = True
            self._publishing.join()
            self._publishing = None
        published, self._published = self._published, []
        return published
