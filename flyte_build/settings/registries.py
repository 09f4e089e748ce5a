"""Which repositories a command uses: for what is shared, and for deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import table
from .configuration import Configuration
from .places import Places

if TYPE_CHECKING:
    from flyte_build.cas.registry.name import RepositoryName


class Registries(NamedTuple):
    """What is shared is read from `reads`, in order, and published to `write`. Deployments are in
    `home`, where that is configured.
    """

    reads: tuple[RepositoryName, ...] = ()
    write: RepositoryName | None = None
    home: RepositoryName | None = None

    @classmethod
    def configured(cls, config: Configuration) -> Registries:
        """`registry` alone is for all; `cache.read` and `cache.write` are in its place where they
        are given, also as nothing.
        """
        home = config[table.SHARED]
        reads, write = config[table.CACHE_READ], config[table.CACHE_WRITE]
        if config.source(table.CACHE_READ) == "default":
            reads = (home,) if home else ()
        if config.source(table.CACHE_WRITE) == "default":
            write = home
        return cls(reads, write, home or write)

    def of_deployments(self, places: Places) -> tuple[RepositoryName, ...]:
        """Where deployments are: the first is where new ones go. Without a registry that is a
        directory among the user's data.
        """
        from flyte_build.cas.registry.name import RepositoryName

        own = self.home or RepositoryName(folder=f"{places.data}/deployments")
        return (own, *(each for each in self.reads if each != own)) if self.home else (own,)
