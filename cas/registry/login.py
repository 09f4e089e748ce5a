"""Asking a registry whether it knows a user."""

from __future__ import annotations

from flyte_build.cas.counters import Counters

from .connection import drain
from .name import RepositoryName
from .session import Session

_TIMEOUT = 10.0  # Seconds without any byte.


def check_login(name: RepositoryName, user: str, password: str) -> None:
    """Raise `RegistryDenied` if the registry of a repository does not take these credentials, `RegistryUnreachable` if it does not answer.

    Asked is what the distribution-spec 1.1 calls end-1, which needs no right to any repository.
    """
    session = Session(name, Counters())
    session.use(user, password)
    drain(session.ask("GET", session.base, frozenset({200}), timeout=_TIMEOUT))
