"""The `Authorization` for the registry of one repository: none, a password, or a token.

Challenges follow RFC 9110, 11.6.1; tokens follow distribution's "Token Authentication
Specification". A registry may name any host for tokens, but none is requested without encryption,
nor from a private address that is not the registry's own.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from dataclasses import dataclass
from threading import Lock
from urllib.parse import urlencode, urlsplit

from urllib3.exceptions import HTTPError

from flyte_build.errors import RegistryDenied

from .connection import SMALL, Connections
from .credentials import encoded, find
from .error_responses import failure, late, refusal, shown
from .name import RepositoryName
from .retry_budget import Transient

_BEARER = re.compile(r'(?:^|,)\s*bearer\s+((?:\w+="[^"]*"[\s,]*)+)', re.IGNORECASE)
_BASIC = re.compile(r"(?:^|,)\s*basic\b", re.IGNORECASE)
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_RIGHTS = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}  # All other methods need "push".
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")


@dataclass(frozen=True)
class _Challenge:
    """A registry's challenge: a token of a realm (URL) for a service and scopes, or a password."""

    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, header: str) -> _Challenge | None:
        """Return a challenge that can be answered, preferably by a token, or None."""
        if bearer := _BEARER.search(header):
            found = {name.lower(): value for name, value in _PARAMETER.findall(bearer[1])}
            scopes = " ".join(sorted(map(_in_order, found.get("scope", "").split())))
            return cls(found.get("realm", ""), found.get("service", ""), scopes)
        return cls() if _BASIC.search(header) else None

    @property
    def url(self) -> str:
        """URL from which to request the token."""
        asked = [("service", self.service)] if self.service else []
        asked += [("scope", scope) for scope in self.scope.split()]
        return (
            f"{self.realm}{'&' if '?' in self.realm else '?'}{urlencode(asked)}"
            if asked
            else self.realm
        )


class Authorizations:
    """Authorizations for one repository. Thread-safe: each thread gets what its challenge needs."""

    def __init__(self, name: RepositoryName, connections: Connections) -> None:
        self._name, self._connections = name, connections
        self._known: dict[_Challenge, str] = {}
        self._last: dict[str, _Challenge] = {}
        self._basic: str | None = None
        self._loaded = False
        self._lock = Lock()

    def use(self, user: str, password: str) -> None:
        """Use these credentials, and no others."""
        self._basic, self._loaded = encoded(user, password), True

    def expected(self, method: str) -> str:
        """Return the authorization that a method will probably need, or ""."""
        challenge = self._last.get(_RIGHTS.get(method, "push")) or self._last.get("")
        return self._known.get(challenge, "") if challenge else ""

    def answer(self, method: str, header: str, used: str, scheme: str, timeout: float) -> str:
        """Return the answer to a challenge, or `used` again if there is nothing else to try.

        The challenge is the response to a request with the authorization `used`, sent to the
        registry over `scheme`. Raises `Transient`, `RegistryUnreachable` and `RegistryDenied`.
        """
        challenge = _Challenge.parse(header)
        if challenge is None:
            return used
        with self._lock:
            if not self._loaded:
                self._basic, self._loaded = find(self._name.host), True
            known = self._known.get(challenge)
            if known is None or known == used:  # Else another thread has already got a new one.
                basic = f"Basic {self._basic}" if self._basic else ""
                known = (
                    f"Bearer {self._token(challenge, basic, scheme, timeout)}"
                    if challenge.realm
                    else basic
                )
                self._known[challenge] = known
            self._last[_RIGHTS.get(method, "push")] = self._last[""] = challenge
            return known

    def _token(self, challenge: _Challenge, basic: str, scheme: str, timeout: float) -> str:
        realm = shown(challenge.realm)
        if not self._may_ask(challenge.realm, scheme):
            raise RegistryDenied(
                f"Cannot request a token for {self._name} from {realm}",
                why=(
                    "Tokens are requested over https only, and not from a private network unless"
                    " the registry itself is in it."
                ),
            )
        headers = {"Accept": "application/json", **({"Authorization": basic} if basic else {})}
        with self._connections.send("GET", challenge.url, headers, timeout=timeout) as answer:
            if answer.status == 200:
                try:
                    document = json.loads(answer.read(SMALL))
                    token = document.get("token") or document.get("access_token")
                    if _TOKEN.match(token):
                        return str(token)
                except (HTTPError, OSError) as error:
                    raise failure(self._name, error) from error
                except (ValueError, TypeError, AttributeError, RecursionError):
                    pass  # The error is raised below, and shows nothing of it.
                if self._connections.deadlines.is_late(answer):
                    raise late(self._name)
                raise RegistryDenied(
                    f"Cannot get a token for {self._name}",
                    why=f"The response of {realm} contains none.",
                )
            refused = refusal(self._name, "token", answer)
            if isinstance(refused, Transient):
                raise refused
            raise RegistryDenied(
                f"Cannot get a token for {self._name}",
                why=(
                    f"{realm} rejected the credentials. {refused.why}"
                    if basic
                    else f"{realm} requires credentials. {refused.why}"
                ),
                hint=f"Use `flyte registry login {self._name.host}`.",
            )

    def _may_ask(self, realm: str, scheme: str) -> bool:
        try:
            parts, own = urlsplit(realm), urlsplit(f"//{self._name.host}").hostname
            host = (parts.hostname or "").rstrip(".")
        except ValueError:
            return False
        if host == own and parts.scheme == scheme:
            return True
        if self._name.is_loopback and _is_loopback(host):  # Both are on this machine.
            return parts.scheme in ("http", "https")
        return parts.scheme == "https" and bool(host) and not _is_private(host)


def _in_order(scope: str) -> str:
    """Sort the actions of a scope, `type:name:action,action`; registries give them in any order."""
    head, colon, actions = scope.rpartition(":")
    return f"{head}{colon}{','.join(sorted(actions.split(',')))}"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host stands for, or None.

    It accepts what the system's resolver does: 127.1, 0x7f000001.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    return (address.ipv4_mapped if address.version == 6 else None) or address


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host == "localhost"


def _is_private(host: str) -> bool:
    address = _address(host)
    return not address.is_global if address else host == "localhost" or host.endswith(".localhost")
