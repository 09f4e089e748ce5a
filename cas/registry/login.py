"""Asking a registry whether it knows a user (distribution-spec 1.1, end-1, which needs no right to
any repository).
"""

from __future__ import annotations

from urllib3.response import BaseHTTPResponse

from flyte_build.cas.counters import Counters
from flyte_build.errors import RegistryDenied

from .connection import kept
from .error_responses import API_VERSION, foreign, refusal
from .name import RepositoryName
from .session import RegistrySession

_TIMEOUT = 10.0  # Seconds without any byte.


def check_login(name: RepositoryName, user: str, password: str) -> bool:
    """Whether a registry wants a login at all; if it does, it takes this one. Nothing is sent to
    one that does not ask for it.

    Raises `RegistryDenied` if it does not take these credentials, `RegistryUnreachable` if it does
    not answer, and `RegistryCorrupt` if it is no registry.
    """
    session = RegistrySession(name, Counters())
    first = session.ask_anonymously(session.base, _TIMEOUT)
    if first.status != 401:
        _check(name, first)
        return False
    if not first.headers.get("WWW-Authenticate"):
        raise foreign(name, first, "its version")
    first.close()
    session.use(user, password)
    try:
        answer = session.ask("GET", session.base, frozenset({200}), timeout=_TIMEOUT)
    except RegistryDenied as error:
        hint = "Check the user's name and the password, or token." if error.hint else ""
        raise RegistryDenied(error.what, why=error.why, hint=hint) from None
    _check(name, answer)
    return True


def _check(name: RepositoryName, answer: BaseHTTPResponse) -> None:
    """Raise an error for the answer to the question for the version that no registry gives."""
    if answer.status not in (200, 404):
        raise refusal(name, "to be used", answer)
    answer, said = kept(answer)
    if answer.status == 404 or (
        API_VERSION not in answer.headers and said.strip() not in (b"", b"{}")
    ):
        raise foreign(name, answer, "its version")
