"""Opening a repository by its name: the one place that knows the kinds there are."""

from __future__ import annotations

from flyte_build.cas.counters import Counters

from .name import RepositoryName
from .patience import Patience
from .repository import Repository


def open_repository(name: RepositoryName, counters: Counters, patience: Patience) -> Repository:
    """The repository of that name; nothing is asked of it yet. `patience` is for look-ups that fail."""
    if name.folder:
        from .layout import LayoutRepository

        return LayoutRepository(name, counters)
    from .distribution import RemoteRepository

    return RemoteRepository(name, counters, patience)
