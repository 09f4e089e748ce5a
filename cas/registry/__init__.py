"""OCI repositories, on a registry or in a directory, with transfers and published records."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyte_build.cas.counters import Counters

    from .name import RepositoryName
    from .repository import Repository
    from .retry_budget import RetryBudget


def open_repository(name: RepositoryName, counters: Counters, patience: RetryBudget) -> Repository:
    """Open the repository of that name, without sending any request yet.

    `patience` is the retry budget for lookups.
    """
    if name.folder:
        from .layout import LayoutRepository

        return LayoutRepository(name, counters)
    from .distribution import RemoteRepository

    return RemoteRepository(name, counters, patience)
