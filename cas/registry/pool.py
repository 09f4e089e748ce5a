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
    """Pool of open repositories, which share one retry budget.

    So a command waits for failures once, not for each repository and request. `failed` holds the
    names of the repositories that have failed, and are not contacted any more.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters, self._budget = counters, RetryBudget()
        self._opened: dict[str, Repository] = {}
        self.failed: set[str] = set()

    def open(self, name: RepositoryName) -> Repository:
        """Open the repository of that name, once, without sending any request yet.

        Several threads may use it at once.
        """
        text = str(name)
        if text not in self._opened:
            self._opened.setdefault(text, open_repository(name, self._counters, self._budget))
        return self._opened[text]
