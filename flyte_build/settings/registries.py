"""Repositories that a command uses for the shared cache and for deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import table
from .configuration import Configuration
from .places import Places

if TYPE_CHECKING:
    from flyte_build.cas.registry.name import RepositoryName


class Registries(NamedTuple):
    """Repositories of the shared cache and of deployments.

    The shared cache is read from `reads`, in order, and published to `write`. Deployments are in
    `home`, if that is configured.
    """

    reads: tuple[RepositoryName, ...] = ()
    write: RepositoryName | None = None
    home: RepositoryName | None = None

    @classmethod
    def configured(cls, config: Configuration) -> Registries:
        """Return the configured repositories.

        `registry` is used for everything; `cache.read` and `cache.write` override it for the
        shared cache if they are set, even to an empty value.
        """
        home = config[table.SHARED]
        reads, write = config[table.CACHE_READ], config[table.CACHE_WRITE]
        if config.source(table.CACHE_READ) == "default":
            reads = (home,) if home else ()
        if config.source(table.CACHE_WRITE) == "default":
            write = home
        return cls(reads, write, home or write)

    def of_deployments(self, places: Places) -> tuple[RepositoryName, ...]:
        """Return the repositories of deployments; new ones are written to the first.

        Without a registry, it is a directory among the user's data.
        """
        from flyte_build.cas.registry.name import RepositoryName

        own = self.home or RepositoryName(folder=f"{places.data}/deployments")
        return (own, *(each for each in self.reads if each != own)) if self.home else (own,)
