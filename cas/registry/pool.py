"""The repositories of one command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import open_repository
from .retry_budget import RetryBudget

if TYPE_CHECKING:
    from flyte_build.cas.counters import Counters

    from .name import RepositoryName
    from .repository import Repository


class RepositoryPool:
    """Opens repositories, each once; all share one retry budget, so that a command waits for what
    fails once and not for each part of it.

    `failed` are the names of those that are not asked any more: they were found to fail.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters, self._budget = counters, RetryBudget()
        self._opened: dict[str, Repository] = {}
        self.failed: set[str] = set()

    def open(self, name: RepositoryName) -> Repository:
        """The repository of that name; nothing is asked of it yet. Several threads may use it at
        once.
        """
        text = str(name)
        if text not in self._opened:
            self._opened.setdefault(text, open_repository(name, self._counters, self._budget))
        return self._opened[text]
