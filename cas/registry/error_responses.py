"""Conversion of unexpected responses and failed requests to errors.

No error contains a password or the query of a URL.
"""

from __future__ import annotations

import json
import re
from http.client import IncompleteRead
from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError, SSLError, TimeoutError
from urllib3.response import BaseHTTPResponse

from flyte_build.errors import (
    RegistryDenied,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
    RepositoryCorrupt,
)

from .name import RepositoryName, redacted
from .retry_budget import Late, Transient

API_VERSION = "Docker-Distribution-Api-Version"  # In every response of most registries.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_LENGTH = 300  # Maximum characters of a message from elsewhere.
_READ = 1 << 16  # Maximum bytes to read of it.


def refusal(name: RepositoryName, what: str, answer: BaseHTTPResponse) -> RegistryError:
    """Return the error for a response with an unexpected status to `what`, as in "GET"."""
    status, why = answer.status, f"It answered {answer.status}{_reason(answer)}."
    if status in _TRANSIENT:
        return Transient(
            f"{name} is temporarily unavailable",
            why=why,
            after=_seconds(answer.headers.get("Retry-After")),
        )
    if status in (401, 403):
        return RegistryDenied(
            f"{name} denied access",
            why=why,
            hint=f"Use `flyte registry login {name.host}`, or ask for access to the repository.",
        )
    return RegistryRefused(f"{name} refused the {what} request", why=why)


def failure(name: RepositoryName, error: Exception) -> RegistryUnreachable:
    """Return the error for a failed request; it is `Transient` if the failure may pass."""
    cause = error.original_error if isinstance(error, ProxyError) else error
    text = _plain(re.sub(r"^.*?\): |\[Errno -?[0-9]+\] ", "", str(cause))).rstrip(".") + "."
    if any(isinstance(reason, ConnectionError | IncompleteRead) for reason in (cause, *cause.args)):
        text = "The other side closed the connection."
    if isinstance(error, ProxyError):
        text = f"Through the proxy: {text}"
    if isinstance(error, SSLError):
        return RegistryUnreachable(
            f"Cannot verify the certificate of {name}",
            why=text,
            hint="For a private certificate authority, set SSL_CERT_FILE to the authority's file.",
        )
    # NewConnectionError is a TimeoutError, too.
    if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
        waited = re.search(r"timeout=([0-9.]+)", text)
        why = (
            f"There was no response within {float(waited[1]):.2g} s."
            if waited
            else "It stopped in the middle of a response."
        )
        return Late(f"{name} does not respond", why=why)
    return Transient(f"{name} cannot be reached", why=text)


def late(name: RepositoryName) -> Late:
    """Return the error for a response that arrived too slowly."""
    return Late(f"{name} is too slow", why="It did not send enough bytes in time.")


def foreign(name: RepositoryName, answer: BaseHTTPResponse, wanted: str) -> RepositoryCorrupt:
    """Return the error for a response that no registry would give to a request for `wanted`."""
    kind = _plain(answer.headers.get("Content-Type", "")) or "no content type"
    return RepositoryCorrupt(
        f"{name.host} does not respond like a registry",
        why=f"It answered {answer.status} with {kind} when asked for {wanted}.",
        hint="Check the registry's host and port.",
    )


def astray(name: RepositoryName, url: str) -> RegistryRefused:
    """Return the error for a URL that cannot be requested."""
    return RegistryRefused(
        f"{name} points to {shown(url)}", why="That is not a valid http or https URL."
    )


def shown(url: str) -> str:
    """Return a URL for a message, without credentials and query, which may itself be a password."""
    try:
        parts = urlsplit(url)
        return _plain(redacted(f"{parts.scheme}://{parts.netloc}{parts.path}"))
    except ValueError:
        return "a malformed URL"


def _reason(answer: BaseHTTPResponse) -> str:
    """Return the registry's own error message (distribution-spec 1.1, "Error Codes"), truncated."""
    try:
        errors = json.loads(answer.read(_READ))["errors"]
        found = "; ".join(
            f"{error.get('code', '')}: {error.get('message', '')}" for error in errors
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, HTTPError, OSError):
        found = answer.reason or ""
    return f" ({_plain(redacted(found))})" if found else ""


def _plain(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:_LENGTH]


def _seconds(text: str | None) -> float | None:
    """Parse the Retry-After header, seconds or a date (RFC 9110, 10.2.3), to seconds."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return float(text)
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
