"""Which error it is when a registry does not answer, or not as it should. No password, and no query
of an address, is in one.
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

API_VERSION = "Docker-Distribution-Api-Version"  # What most registries add to all of their answers.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_LENGTH = 300  # Characters of what others say.
_READ = 1 << 16  # Bytes that are read of it.


def refusal(name: RepositoryName, what: str, answer: BaseHTTPResponse) -> RegistryError:
    """The error for an answer that is not one of those that were expected to `what`,
    as in "GET".
    """
    status, why = answer.status, f"It answered {answer.status}{_reason(answer)}."
    if status in _TRANSIENT:
        return Transient(
            f"{name} cannot be used at the moment",
            why=why,
            after=_seconds(answer.headers.get("Retry-After")),
        )
    if status in (401, 403):
        return RegistryDenied(
            f"{name} refuses access",
            why=why,
            hint=f"Use `flyte registry login {name.host}`, or ask for the right to it.",
        )
    return RegistryRefused(f"{name} refuses {what}", why=why)


def failure(name: RepositoryName, error: Exception) -> RegistryUnreachable:
    """The error for one of the transport: what may pass is `Transient`."""
    cause = error.original_error if isinstance(error, ProxyError) else error
    text = _plain(re.sub(r"^.*?\): |\[Errno -?[0-9]+\] ", "", str(cause))).rstrip(".") + "."
    if any(isinstance(reason, ConnectionError | IncompleteRead) for reason in (cause, *cause.args)):
        text = "The other side ended the connection."
    if isinstance(error, ProxyError):
        text = f"By way of the proxy: {text}"
    if isinstance(error, SSLError):
        return RegistryUnreachable(
            f"{name} cannot be trusted",
            why=text,
            hint="Set SSL_CERT_FILE to your certificate authority's file, if it is a private one.",
        )
    # Which is one, too.
    if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
        waited = re.search(r"timeout=([0-9.]+)", text)
        why = (
            f"There was no answer within {float(waited[1]):.2g} s."
            if waited
            else "It stopped in the middle of an answer."
        )
        return Late(f"{name} does not answer", why=why)
    return Transient(f"{name} cannot be reached", why=text)


def late(name: RepositoryName) -> Late:
    """The error for an answer that came too slowly to be waited for."""
    return Late(f"{name} is too slow", why="It sent too few bytes in the time that it had.")


def foreign(name: RepositoryName, answer: BaseHTTPResponse, wanted: str) -> RepositoryCorrupt:
    """The error for an answer that no registry gives; `wanted` is what was asked for."""
    kind = _plain(answer.headers.get("Content-Type", "")) or "something without a type"
    return RepositoryCorrupt(
        f"{name.host} answers as no registry does",
        why=f"It answered {answer.status} with {kind} when it was asked for {wanted}.",
        hint="Is that the registry's host and port?",
    )


def astray(name: RepositoryName, url: str) -> RegistryRefused:
    """The error for an address that cannot be asked."""
    return RegistryRefused(
        f"{name} leads to {shown(url)}", why="That is no address that can be asked."
    )


def shown(url: str) -> str:
    """An address for a message: without its query, which may be a password by itself, and without
    credentials.
    """
    try:
        parts = urlsplit(url)
        return _plain(redacted(f"{parts.scheme}://{parts.netloc}{parts.path}"))
    except ValueError:
        return "a malformed address"


def _reason(answer: BaseHTTPResponse) -> str:
    """What the registry says itself (distribution-spec 1.1, "Error Codes"), cut short."""
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
    """The seconds of a Retry-After header, which may also be a date (RFC 9110, 10.2.3)."""
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
