"""Requests to one repository on a registry: oras's session, credentials and tokens, with what they leave open.

Requests go through the connection pools of oras's session, so that proxies, CAs and connections are its own. What is done
here: tokens are asked for only where that is safe and renewed when they expire, redirects drop credentials that are for
another host, no redirect leads from https to http, and every failure is one of our errors.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urljoin, urlsplit

import oras.auth.utils
import oras.logger
import oras.provider
import urllib3
from requests import Request
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, SSLError, TimeoutError
from urllib3.response import BaseHTTPResponse

from flyte_build._version import __version__
from flyte_build.cas.counters import Counters
from flyte_build.errors import RegistryDenied, RegistryRefused, RegistryUnreachable

from . import credentials
from .name import RepositoryName, redacted
from .patience import Transient

if TYPE_CHECKING:
    from urllib3.connectionpool import HTTPConnectionPool

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOPS = 5
_BLOCK = 1 << 20  # Bytes that are written to a socket at once.
_SMALL = 1 << 16  # Bytes that are read of an answer that is not what was asked for.
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


class File(Protocol):
    """What is sent as the body of a request, piece by piece, and from the start again if need be."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""

    def seek(self, position: int, /) -> int:
        """Go to a position."""

    def tell(self) -> int:
        """The position."""


Body = bytes | File | None


class Session:
    """Sends requests to the registry of one repository. Tokens are for that repository alone. Safe to use from several threads."""

    def __init__(self, name: RepositoryName, counters: Counters) -> None:
        self.name, self._counters = name, counters
        self._scheme = name.scheme or ("http" if name.is_loopback else "https")
        self._settled = self._scheme == "https" or bool(name.scheme)
        oras.logger.logger.set_level(logging.CRITICAL)  # What it says may hold what a credential helper printed.
        self._verify = next((path for each in _CA_VARIABLES if (path := os.environ.get(each))), True)
        self._oras = oras.provider.Registry(name.host, insecure=self._scheme == "http", tls_verify=self._verify)
        session = self._oras.session
        session.max_redirects = 0  # Of requests for tokens: where credentials go is decided here.
        session.auth = _unchanged  # Or requests would put what ~/.netrc says in the place of our header.
        self._adapter = _Adapter()
        session.mount("http://", self._adapter)
        session.mount("https://", self._adapter)
        self._pools: dict[tuple[str, str], tuple[HTTPConnectionPool, str | None]] = {}
        self._authorization = ""
        self._basic: str | None = None
        self._loaded = False
        self._lock = Lock()

    @property
    def base(self) -> str:
        """The address that says whether one may use the registry at all."""
        return f"{self._scheme}://{self.name.host}/v2/"

    def use(self, user: str, password: str) -> None:
        """Use these credentials, and no others."""
        self._oras.auth.set_basic_auth(user, password)
        self._basic, self._loaded = self._oras.auth._basic_auth, True

    def url(self, rest: str) -> str:
        """The address of something in the repository: `manifests/<reference>`, `blobs/<digest>`, ..."""
        return f"{self._scheme}://{self.name.host}/v2/{self.name.path}/{rest}"

    def ask(
        self, method: str, url: str, allowed: frozenset[int], *, headers: Mapping[str, str] = {}, body: Body = None, timeout: float = 60.0
    ) -> BaseHTTPResponse:
        """The answer, whose status is one of `allowed`; its body is still to be read. A body that is a file is sent from where it stands.

        `timeout` are seconds without any byte. Raises `Transient` for what may pass, `RegistryUnreachable`, `RegistryDenied` and
        `RegistryRefused`.
        """
        answer = self._ask(method, url, headers, body, timeout)
        if answer.status in allowed:
            return answer
        try:
            raise self._refusal(method, answer)
        finally:
            answer.close()

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: Body, timeout: float) -> BaseHTTPResponse:
        start = 0 if body is None or isinstance(body, bytes) else body.tell()
        for attempt in range(3):  # As it is; with a token; with a new one, should the first have expired.
            used = self._authorization
            answer = self._follow(method, url, headers, body, timeout)
            if not self._settled and self._wants_tls(answer):
                url = url.replace("http:", "https:", 1)
            elif answer.status not in (401, 403) or attempt == 2 or not self._authenticate(answer, used):
                return answer
            answer.drain_conn()
            if body is not None and not isinstance(body, bytes):
                body.seek(start)
        raise AssertionError("unreachable")

    def _follow(self, method: str, url: str, headers: Mapping[str, str], body: Body, timeout: float) -> BaseHTTPResponse:
        for _ in range(_HOPS):
            answer = self._send(method, url, headers, body, timeout)
            location = answer.headers.get("Location")
            if method not in ("GET", "HEAD") or answer.status not in _REDIRECTS or location is None:
                return answer
            answer.drain_conn()
            target = urljoin(url, location)
            if urlsplit(target).scheme != "https" and urlsplit(url).scheme == "https":
                raise RegistryRefused(
                    f"{self.name} redirects from https to {redacted(target)[:200]}", why="That would not be encrypted any more."
                )
            url = target
        raise RegistryUnreachable(f"{self.name} redirects too often", why=f"More than {_HOPS} times for one request.")

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Body, timeout: float) -> BaseHTTPResponse:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise RegistryRefused(f"{self.name} leads to {redacted(url)[:200]}", why="That is no address that can be asked.")
        sent = {"User-Agent": f"flyte-build/{__version__}", **headers}
        if self._authorization and (parts.scheme, parts.netloc) == (self._scheme, self.name.host):
            sent["Authorization"] = self._authorization
        pool, proxy = self._pool(parts.scheme, parts.netloc)
        target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        if proxy and parts.scheme == "http":  # Such a proxy is told the whole address (RFC 9112, 3.2.2).
            target = url
            sent.update(self._adapter.proxy_headers(proxy))
        size = len(body) if isinstance(body, bytes) else 0
        self._counters.add(requests=1, bytes_sent=size)
        try:
            return pool.urlopen(
                method,
                target,
                body=cast(Any, body),  # A file needs no more than what `File` names.
                headers=sent,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=min(timeout, 10.0), read=timeout),
            )
        except (HTTPError, OSError) as error:
            raise failure(self.name, error) from error

    def _pool(self, scheme: str, host: str) -> "tuple[HTTPConnectionPool, str | None]":
        found = self._pools.get((scheme, host))
        if found is None:
            settings = self._oras.session.merge_environment_settings(f"{scheme}://{host}/", {}, None, self._verify, None)
            found = self._pools[scheme, host] = self._adapter.pool(f"{scheme}://{host}/", settings["verify"], settings["proxies"])
        return found

    def _wants_tls(self, answer: BaseHTTPResponse) -> bool:
        """Whether a loopback registry that was asked in the clear for the first time says that it speaks TLS; it is asked so then."""
        self._settled = True
        if answer.status != 400 or b"HTTPS" not in answer.read(_SMALL):
            return False
        self._scheme = self._oras.prefix = self._oras.auth.prefix = "https"
        return True

    def _authenticate(self, answer: BaseHTTPResponse, used: str) -> bool:
        """Get what the answer asks for; false if there is nothing to try with that was not `used` already."""
        challenge = answer.headers.get("WWW-Authenticate", "")
        kind = challenge.partition(" ")[0].lower()
        with self._lock:
            if self._authorization != used:  # Another thread has it by now.
                return True
            if not self._loaded:
                self._basic, self._loaded = credentials.find(self.name.host, self._oras.auth), True
                if self._basic:
                    self._oras.auth._basic_auth = self._basic
            if kind == "bearer":
                self._authorization = f"Bearer {self._token(challenge)}"
            elif kind == "basic" and self._basic:
                self._authorization = f"Basic {self._basic}"
            return self._authorization != used

    def _token(self, challenge: str) -> str:
        """A new token (distribution, "Token Authentication Specification"). It may be had elsewhere, but nothing is sent in the clear."""
        realm = oras.auth.utils.parse_auth_header(challenge).realm or ""
        parts = urlsplit(realm)
        if not self._may_ask(parts.scheme, parts.hostname or ""):
            raise RegistryDenied(
                f"{self.name} sends to {redacted(realm)[:200]!r} for a token",
                why="A token is asked for by https, and not on a private network, unless the registry itself is there.",
            )
        original = _Challenge(challenge)
        self._counters.add(requests=1)
        try:
            headers, _ = self._oras.auth.authenticate_request(original, {}, refresh=True)
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise Transient(f"{self.name} gave no token", why=f"{type(error).__name__} at {redacted(realm)[:200]}.") from None
        kind, _, token = str(headers.get("Authorization", "")).partition(" ")
        if kind != "Bearer" or not token or token == "None":
            raise RegistryDenied(
                f"{self.name} gave no token",
                why=f"{redacted(realm)[:200]} does not take the credentials.",
                hint=f"Use `flyte registry login {self.name.host}`.",
            )
        return token

    def _may_ask(self, scheme: str, host: str) -> bool:
        own = self.name.host.rpartition(":")[0] or self.name.host
        if host == own and scheme == self._scheme:
            return True
        try:
            private = not ipaddress.ip_address(host).is_global
        except ValueError:
            private = host == "localhost" or host.endswith(".localhost")
        if self.name.is_loopback and private:  # Both are on this machine.
            return _on_loopback(host)
        return scheme == "https" and bool(host) and not private

    def _refusal(self, method: str, answer: BaseHTTPResponse) -> RegistryUnreachable | RegistryDenied | RegistryRefused:
        """The error for an answer that is not one of those that were expected."""
        status, why = answer.status, f"It answered {answer.status}{_reason(answer)}."
        if status in _TRANSIENT:
            return Transient(f"{self.name} cannot be used at the moment", why=why, after=_seconds(answer.headers.get("Retry-After")))
        if status in (401, 403):
            return RegistryDenied(
                f"{self.name} refuses access", why=why, hint=f"Use `flyte registry login {self.name.host}`, or ask for the right to it."
            )
        return RegistryRefused(f"{self.name} refuses {method}", why=why)


class _Adapter(HTTPAdapter):
    """Gives the pool of connections to a host, through the proxy that the environment names."""

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, blocksize=_BLOCK, **options)

    def pool(self, url: str, verify: bool | str, proxies: Mapping[str, str]) -> "tuple[HTTPConnectionPool, str | None]":
        from requests.utils import select_proxy

        request = Request("GET", url).prepare()
        return self.get_connection_with_tls_context(request, verify, dict(proxies)), select_proxy(url, dict(proxies))


class _Challenge:
    """As much of an answer as oras looks at to get a token."""

    def __init__(self, challenge: str) -> None:
        self.headers = {"Www-Authenticate": challenge}


def failure(name: RepositoryName, error: Exception) -> RegistryUnreachable:
    """The error for one of the transport: what may pass is `Transient`."""
    text = re.sub(r"^.*?\): ", "", str(error))[:300] or type(error).__name__
    if isinstance(error, SSLError):
        return RegistryUnreachable(
            f"{name} cannot be trusted", why=text, hint="Set SSL_CERT_FILE to your certificate authority's file, if it is a private one."
        )
    if isinstance(error, TimeoutError):
        return Transient(f"{name} does not answer", why=text)
    return Transient(f"{name} cannot be reached", why=text)


def _reason(answer: BaseHTTPResponse) -> str:
    """What the registry says itself (distribution-spec 1.1, "Error Codes"), cut short."""
    try:
        errors = json.loads(answer.read(_SMALL))["errors"]
        found = "; ".join(f"{error.get('code', '')}: {error.get('message', '')}" for error in errors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, HTTPError):
        return f" {answer.reason}" if answer.reason else ""
    return f" ({''.join(filter(str.isprintable, redacted(found)))[:300]})"


def _seconds(text: str | None) -> float | None:
    """The seconds of a Retry-After header, which may also be a date (RFC 9110, 10.2.3)."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _on_loopback(host: str) -> bool:
    return RepositoryName(host=host).is_loopback


def _unchanged(request: Any) -> Any:
    return request
