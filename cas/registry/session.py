"""Requests to the registry of one repository: authorized, redirected, and with our errors only.

Credentials are sent to the registry's own host only, nothing is redirected from https to http, and
only the registry may request credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from urllib.parse import urljoin, urlsplit

from urllib3.response import BaseHTTPResponse

from flyte_build.cas.counters import Counters
from flyte_build.errors import RegistryRefused, RegistryUnreachable

from .connection import Body, Connections, drain, kept, position, rewind
from .error_responses import astray, late, refusal, shown
from .name import RepositoryName
from .tokens import Authorizations

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOPS = 5


class _Time:
    """The time limit of a request with its redirects, in seconds.

    It is for all of them together if `is_shared`, else for each.
    """

    def __init__(self, seconds: float, is_shared: bool = True) -> None:
        self._seconds, self._end = seconds, monotonic() + seconds if is_shared else None

    def left(self, name: RepositoryName) -> float:
        """Return the seconds left. Raises `Late` if there are none."""
        left = self._seconds if self._end is None else self._end - monotonic()
        if left <= 0:
            raise late(name)
        return left


class RegistrySession:
    """Session with the registry of one repository. Thread-safe.

    `reached` is whether it has ever given a response other than a server error (5xx).
    """

    def __init__(self, name: RepositoryName, counters: Counters) -> None:
        self.name, self.reached = name, False
        self._scheme = name.scheme or ("http" if name.is_loopback else "https")
        self._connections = Connections(name, counters)
        self._authorizations = Authorizations(name, self._connections)
        self.deadlines = self._connections.deadlines

    @property
    def base(self) -> str:
        """URL of the API version check, which shows whether one may use the registry at all."""
        return f"{self._scheme}://{self.name.host}/v2/"

    def url(self, rest: str) -> str:
        """Return the URL of `rest`, as in `manifests/<reference>` or `blobs/<digest>`."""
        return f"{self.base}{self.name.path}/{rest}"

    def use(self, user: str, password: str) -> None:
        """Use these credentials, and no others."""
        self._authorizations.use(user, password)

    def led(self, url: str, location: str) -> str:
        """Return the URL to which a response from `url` points.

        Raises `RegistryRefused` for one that must not be requested.
        """
        try:
            target = urljoin(url, location)
            downgrade = urlsplit(target).scheme != "https" and urlsplit(url).scheme == "https"
        except ValueError:
            raise astray(self.name, location) from None
        if downgrade:
            raise RegistryRefused(
                f"{self.name} redirects from https to {shown(target)}",
                why="The connection would no longer be encrypted.",
            )
        return target

    def ask(
        self,
        method: str,
        url: str,
        allowed: frozenset[int],
        *,
        headers: Mapping[str, str] = {},
        body: Body = None,
        timeout: float = 60.0,
    ) -> BaseHTTPResponse:
        """Send a request, and return its response, whose status is one of `allowed`.

        The body of the response is not read yet. A request body that is a file is sent from its
        current position. All responses must arrive within `timeout` seconds, including redirects
        and tokens; if the body is a file, each has that time once its request was sent. Raises
        `Transient` for failures that may pass, `RegistryUnreachable`, `RegistryDenied` and
        `RegistryRefused`.
        """
        answer = self._ask(
            method,
            url,
            headers,
            body,
            _Time(timeout, is_shared=body is None or isinstance(body, bytes)),
        )
        if answer.status in allowed:
            return answer
        try:
            raise refusal(self.name, method, answer)
        finally:
            answer.close()

    def ask_anonymously(self, url: str, timeout: float) -> BaseHTTPResponse:
        """Send a request without credentials, and return the response, whatever it is.

        Raises the errors of `ask`.
        """
        return self._follow("GET", url, {}, None, _Time(timeout), "")[1]

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: Body, time: _Time
    ) -> BaseHTTPResponse:
        start = position(body)
        authorization = self._authorizations.expected(method)
        # First as it is, or with a known authorization; then with a new token, if that has expired.
        for _ in range(2):
            asked, answer = self._follow(method, url, headers, body, time, authorization)
            if answer.status not in (401, 403) or not self._is_own(asked):
                return answer
            challenge = answer.headers.get("WWW-Authenticate", "")
            try:
                new = self._authorizations.answer(
                    method, challenge, authorization, self._scheme, time.left(self.name)
                )
            except BaseException:
                answer.close()
                raise
            if new == authorization:
                return answer
            authorization = new
            drain(answer)
            rewind(body, start)
        return self._follow(method, url, headers, body, time, authorization)[1]

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body,
        time: _Time,
        authorization: str,
    ) -> tuple[str, BaseHTTPResponse]:
        """Follow redirects, and return the final URL and response.

        Switches to https if the registry turns out to require it.
        """
        start = position(body)
        for _ in range(_HOPS):
            own = {"Authorization": authorization} if authorization and self._is_own(url) else {}
            answer = self._connections.send(
                method, url, {**headers, **own}, body, time.left(self.name)
            )
            self.reached = self.reached or answer.status < 500
            if answer.status == 400 and self._may_want_tls(url):
                answer, said = kept(answer)
                if self._wants_tls(answer, said):
                    url = url.replace("http:", "https:", 1)
                    rewind(body, start)
                    continue
            location = answer.headers.get("Location")
            if method not in ("GET", "HEAD") or answer.status not in _REDIRECTS or location is None:
                return url, answer
            drain(answer)
            url = self.led(url, location)
        raise RegistryUnreachable(
            f"{self.name} redirects too often", why=f"More than {_HOPS} times for one request."
        )

    def _is_own(self, url: str) -> bool:
        return url.startswith(f"{self._scheme}://{self.name.host}/")

    def _may_want_tls(self, url: str) -> bool:
        """Whether an unencrypted request went to a loopback registry whose name has no scheme."""
        return not self.name.scheme and url.startswith(f"http://{self.name.host}/")

    def _wants_tls(self, answer: BaseHTTPResponse, said: bytes) -> bool:
        """Whether the response to an unencrypted request shows that the registry speaks TLS.

        Another thread may have found that out already.
        """
        # Go's server answers this without any header, and HEAD has no body. JSON comes from the
        # registry itself.
        if not answer.headers or (
            "json" not in answer.headers.get("Content-Type", "") and b"HTTPS" in said
        ):
            self._scheme = "https"
        return self._scheme == "https"
