"""What is sent as `Authorization` to the registry of one repository: nothing, a password, or tokens
that are had for it.

Challenges are RFC 9110's, 11.6.1; tokens are those of distribution's "Token Authentication
Specification". A registry may send one to any host for a token, but nothing is sent in the clear,
nor to a private address that is not the registry's own.
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
_RIGHTS = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}  # And "push" for all others.
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")


@dataclass(frozen=True)
class _Challenge:
    """What a registry asks for: a token of a realm (a URL) for a service and scopes, or else a
    password.
    """

    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, header: str) -> _Challenge | None:
        """A challenge that can be answered, if there is one; a token rather than a password."""
        if bearer := _BEARER.search(header):
            found = {name.lower(): value for name, value in _PARAMETER.findall(bearer[1])}
            scopes = " ".join(sorted(map(_in_order, found.get("scope", "").split())))
            return cls(found.get("realm", ""), found.get("service", ""), scopes)
        return cls() if _BASIC.search(header) else None

    @property
    def url(self) -> str:
        """Where the token is had."""
        asked = [("service", self.service)] if self.service else []
        asked += [("scope", scope) for scope in self.scope.split()]
        return (
            f"{self.realm}{'&' if '?' in self.realm else '?'}{urlencode(asked)}"
            if asked
            else self.realm
        )


class Authorizations:
    """The authorizations for one repository. Safe to use from several threads: each has what the
    challenge to it asks for.
    """

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
        """What will probably be asked for with a method, or ""."""
        challenge = self._last.get(_RIGHTS.get(method, "push")) or self._last.get("")
        return self._known.get(challenge, "") if challenge else ""

    def answer(self, method: str, header: str, used: str, scheme: str, timeout: float) -> str:
        """What answers a challenge to a request that was sent with `used`; that again if there is
        nothing else to try.

        `scheme` is the one by which the registry is asked. Raises `Transient`,
        `RegistryUnreachable` and `RegistryDenied`.
        """
        challenge = _Challenge.parse(header)
        if challenge is None:
            return used
        with self._lock:
            if not self._loaded:
                self._basic, self._loaded = find(self._name.host), True
            known = self._known.get(challenge)
            if known is None or known == used:  # Else another thread has got a new one by now.
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
                f"{self._name} sends to {realm} for a token",
                why=(
                    "A token is asked for by https, and not on a private network, unless the"
                    " registry itself is there."
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
                    pass  # It is said below, without any of it.
                if self._connections.deadlines.is_late(answer):
                    raise late(self._name)
                raise RegistryDenied(
                    f"{self._name} gave no token", why=f"What {realm} answered holds none."
                )
            refused = refusal(self._name, "to give a token", answer)
            if isinstance(refused, Transient):
                raise refused
            raise RegistryDenied(
                f"{self._name} gave no token",
                why=(
                    f"{realm} does not take the credentials. {refused.why}"
                    if basic
                    else f"{realm} wants credentials. {refused.why}"
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
    """A scope, `type:name:action,action`, with its actions in order: a registry names
    them in any.
    """
    head, colon, actions = scope.rpartition(":")
    return f"{head}{colon}{','.join(sorted(actions.split(',')))}"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is; also of what the system's resolver takes as one: 127.1,
    0x7f000001.
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
