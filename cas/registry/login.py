"""Check of a login at a registry (distribution-spec 1.1, end-1: needs no repository access)."""

from __future__ import annotations

from urllib3.response import BaseHTTPResponse

from flyte_build.cas.counters import Counters
from flyte_build.errors import RegistryDenied

from .connection import kept
from .error_responses import API_VERSION, foreign, refusal
from .name import RepositoryName
from .session import RegistrySession

_TIMEOUT = 10.0  # Seconds for the whole response.


def check_login(name: RepositoryName, user: str, password: str) -> bool:
    """Check credentials; return False, without sending them, if the registry wants no login at all.

    Raises `RegistryDenied` if the registry rejects these credentials, `RegistryUnreachable` if it
    does not respond, and `RegistryCorrupt` if it is not a registry.
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
        hint = "Check the user name and the password or token." if error.hint else ""
        raise RegistryDenied(error.what, why=error.why, hint=hint) from None
    _check(name, answer)
    return True


def _check(name: RepositoryName, answer: BaseHTTPResponse) -> None:
    """Raise an error if the response to the API version check is not that of a registry."""
    if answer.status not in (200, 404):
        raise refusal(name, "GET", answer)
    answer, said = kept(answer)
    if answer.status == 404 or (
        API_VERSION not in answer.headers and said.strip() not in (b"", b"{}")
    ):
        raise foreign(name, answer, "its version")
