"""OCI repositories, on a registry or in a directory: what they keep, how it is moved, and how
records are kept among it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyte_build.cas.counters import Counters

    from .name import RepositoryName
    from .repository import Repository
    from .retry_budget import RetryBudget


def open_repository(name: RepositoryName, counters: Counters, patience: RetryBudget) -> Repository:
    """The repository of that name; nothing is asked of it yet. `patience` is for look-ups that
    fail.
    """
    if name.folder:
        from .layout import LayoutRepository

        return LayoutRepository(name, counters)
    from .distribution import RemoteRepository

    return RemoteRepository(name, counters, patience)
