"""One request, one answer: over oras's session, whose proxies, certificate authorities and pools of
connections are used.

Nothing is followed, tried again or remembered here, and no credentials are added: netrc and cookies
play no part.
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

SMALL = 1 << 16  # Bytes that are read at most of an answer that is not what was asked for.
_BLOCK = 1 << 18  # Bytes that are written to a socket at once.
_CONNECT = 10.0  # Seconds for a connection to be made, and for a block to be written.
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


class File(Protocol):
    """What is sent as the body of a request, piece by piece, and from the start again
    if need be.
    """

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""

    def seek(self, position: int, /) -> int:
        """Go to a position."""

    def tell(self) -> int:
        """The position."""


Body = bytes | File | None


class Connections:
    """Connections for the sake of one repository, to its registry and to wherever that leads. Safe
    to use from several threads.
    """

    def __init__(self, name: RepositoryName, counters: Counters) -> None:
        self._name, self._counters = name, counters
        # What it says may hold what a credential helper printed.
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
        """The answer, whatever it is; its body is still to be read.

        Once the request was sent, all of the answer must come within `timeout` seconds, which
        `deadlines` extends. Raises `Transient` for what may pass, `RegistryUnreachable` and
        `RegistryRefused` for an address that cannot be asked.
        """
        try:
            parts = urlsplit(url)
            pool, proxy = self._pool(parts.scheme, parts.netloc)
        except (ValueError, HTTPError) as error:
            raise astray(self._name, url) from error
        sent = {"User-Agent": f"flyte-build/{__version__}", **headers}
        target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        # Such a proxy is told the whole address (RFC 9112, 3.2.2).
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
                    body=cast(Any, body),  # A file needs no more than what `File` names.
                    headers=sent,
                    redirect=False,
                    assert_same_host=False,  # A proxy is another one.
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=urllib3.Timeout(connect=min(timeout, _CONNECT), read=timeout),
                )
            except (HTTPError, OSError) as error:
                was_kept = pool.num_connections == made
                # A kept connection may have been closed just now (RFC 9112, 9.3.1).
                if not (first and was_kept and _is_cut(error)):
                    raise failure(self._name, error) from error
            except ValueError:  # Of a header, which it shows, and which may be a password.
                raise RegistryRefused(
                    f"{self._name} cannot be asked", why="What would be sent is no valid request."
                ) from None
            rewind(body, start)
        raise AssertionError("unreachable")

    def _pool(self, scheme: str, host: str) -> tuple[HTTPConnectionPool, str | None]:
        """The connections to a host, and the proxy that they go through. Raises `ValueError` for
        what is no host.
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
    """Gives the pool of connections to a host, through the proxy that the environment names."""

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
    """Whether the other side ended the connection."""
    reasons = [error, error.__context__, *error.args]
    return any(isinstance(reason, ConnectionError) for reason in reasons)


def position(body: Body) -> int:
    """Where a body stands that is a file."""
    return 0 if body is None or isinstance(body, bytes) else body.tell()


def rewind(body: Body, start: int) -> None:
    """Have a body that is a file sent from there again."""
    if body is not None and not isinstance(body, bytes):
        body.seek(start)


def kept(answer: BaseHTTPResponse) -> tuple[BaseHTTPResponse, bytes]:
    """The same answer, still to be read, and the beginning of its body (`SMALL` bytes), which is
    all that it has from now on.
    """
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
    """Read what is left of an answer that is not wanted, so that its connection can be used again;
    a long one is not worth it.
    """
    try:
        read = 0
        while read <= SMALL and (piece := answer.read1(SMALL)):
            read += len(piece)
    except (HTTPError, OSError):
        pass
    answer.close()
