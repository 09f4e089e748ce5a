"""Single requests and their responses, over the proxies, certificates and pools of oras's session.

Nothing is redirected, retried or remembered here, and no credentials are added: netrc and cookies
are ignored.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urlsplit

import oras.logger
import oras.provider
import urllib3
from requests import Request
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse, HTTPResponse

from flyte_build._version import __version__
from flyte_build.cas.counters import Counters
from flyte_build.errors import RegistryRefused

from .deadlines import Deadlines, TimedAdapter
from .error_responses import astray, failure
from .name import RepositoryName

if TYPE_CHECKING:
    from urllib3.connectionpool import HTTPConnectionPool

SMALL = 1 << 16  # Maximum bytes to read of a response that is not the expected one.
_BLOCK = 1 << 18  # Bytes written to a socket at once.
_CONNECT = 10.0  # Seconds to establish a connection, and to write a block.
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


class File(Protocol):
    """A request body that is read piece by piece, and again from the start if needed."""

    def read(self, size: int = -1, /) -> bytes:
        """Read and return the next bytes."""

    def seek(self, position: int, /) -> int:
        """Move to a position."""

    def tell(self) -> int:
        """Return the current position."""


Body = bytes | File | None


class Connections:
    """Connections for one repository, to its registry and wherever that redirects. Thread-safe."""

    def __init__(self, name: RepositoryName, counters: Counters) -> None:
        self._name, self._counters = name, counters
        # Its log could contain the output of a credential helper.
        oras.logger.logger.set_level(logging.CRITICAL)
        self._verify = next(
            (path for each in _CA_VARIABLES if (path := os.environ.get(each))), True
        )
        self._session = oras.provider.Registry(name.host, tls_verify=self._verify).session
        self.deadlines = Deadlines()
        self._adapter = _Adapter(self.deadlines)
        self._pools: dict[tuple[str, str], tuple[HTTPConnectionPool, str | None]] = {}

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] = {},
        body: Body = None,
        timeout: float = 60.0,
    ) -> BaseHTTPResponse:
        """Send a request, and return its response, whatever the status; the body is not read yet.

        Once the request is sent, the whole response must arrive within `timeout` seconds, which
        `deadlines` can extend. Raises `Transient` for failures that may pass, and
        `RegistryUnreachable` or `RegistryRefused` for a URL that cannot be requested.
        """
        try:
            parts = urlsplit(url)
            pool, proxy = self._pool(parts.scheme, parts.netloc)
        except (ValueError, HTTPError) as error:
            raise astray(self._name, url) from error
        sent = {"User-Agent": f"flyte-build/{__version__}", **headers}
        target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        # Such a proxy gets the whole URL (RFC 9112, 3.2.2).
        if proxy and parts.scheme == "http":
            target = url
            sent.update(self._adapter.proxy_headers(proxy))
        start = position(body)
        for first in (True, False):
            made = pool.num_connections
            self._counters.add(requests=1, bytes_sent=len(body) if isinstance(body, bytes) else 0)
            try:
                return pool.urlopen(
                    method,
                    target,
                    body=cast(Any, body),  # The methods of `File` are all that it needs.
                    headers=sent,
                    redirect=False,
                    assert_same_host=False,  # A proxy is a different host.
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=urllib3.Timeout(connect=min(timeout, _CONNECT), read=timeout),
                )
            except (HTTPError, OSError) as error:
                was_kept = pool.num_connections == made
                # A reused connection may have been closed just now (RFC 9112, 9.3.1).
                if not (first and was_kept and _is_cut(error)):
                    raise failure(self._name, error) from error
            except ValueError:  # It shows an invalid header, which may be a password.
                raise RegistryRefused(
                    f"Cannot send a request to {self._name}", why="A header of it is invalid."
                ) from None
            rewind(body, start)
        raise AssertionError("unreachable")

    def _pool(self, scheme: str, host: str) -> tuple[HTTPConnectionPool, str | None]:
        """Return the connection pool for a host, and the proxy it uses.

        Raises `ValueError` for an invalid scheme or host.
        """
        if scheme not in ("http", "https") or not host or "@" in host:
            raise ValueError
        found = self._pools.get((scheme, host))
        if found is None:
            settings = self._session.merge_environment_settings(
                f"{scheme}://{host}/", {}, None, self._verify, None
            )
            found = self._adapter.pool(
                f"{scheme}://{host}/", settings["verify"], settings["proxies"]
            )
            self._pools[scheme, host] = found
        return found


class _Adapter(TimedAdapter):
    """Provider of the connection pool for a host, through the proxy set in the environment."""

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **options: Any
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, blocksize=_BLOCK, **options)

    def pool(
        self, url: str, verify: bool | str, proxies: Mapping[str, str]
    ) -> tuple[HTTPConnectionPool, str | None]:
        from requests.utils import select_proxy

        request = Request("GET", url).prepare()
        return self.get_connection_with_tls_context(request, verify, dict(proxies)), select_proxy(
            url, dict(proxies)
        )


def _is_cut(error: Exception) -> bool:
    """Whether the other side closed the connection."""
    reasons = [error, error.__context__, *error.args]
    return any(isinstance(reason, ConnectionError) for reason in reasons)


def position(body: Body) -> int:
    """Return the current position in a body that is a file, else 0."""
    return 0 if body is None or isinstance(body, bytes) else body.tell()


def rewind(body: Body, start: int) -> None:
    """Move a body that is a file back to `start`, to send it again."""
    if body is not None and not isinstance(body, bytes):
        body.seek(start)


def kept(answer: BaseHTTPResponse) -> tuple[BaseHTTPResponse, bytes]:
    """Cut the body of a response to its first `SMALL` bytes; return the new response, and them."""
    try:
        said = answer.read(SMALL)
    except (HTTPError, OSError):
        said = b""
    drain(answer)
    again = HTTPResponse(
        BytesIO(said),
        answer.headers,
        answer.status,
        reason=answer.reason,
        preload_content=False,
        decode_content=False,
        enforce_content_length=False,
    )
    return again, said


def drain(answer: BaseHTTPResponse) -> None:
    """Read and discard the rest of a response, so that its connection can be reused.

    A long rest is not worth reading: the connection is closed.
    """
    try:
        read = 0
        while read <= SMALL and (piece := answer.read1(SMALL)):
            read += len(piece)
    except (HTTPError, OSError):
        pass
    answer.close()
