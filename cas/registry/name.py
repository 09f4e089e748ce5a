"""Repository names: `host/path`, `https://host/path`, `http://host/path`, or `oci:/directory`.

The last one is an image layout.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from flyte_build.errors import ReferenceInvalid

# distribution-spec 1.1, "name".
_PATH = re.compile(
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*\Z"
)
_HOST = re.compile(
    r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?\Z"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]+)?\Z")
HUB = "registry-1.docker.io"
"""Registry of Docker Hub."""
HUB_NAMES = ("docker.io", "index.docker.io")
"""Other hosts by which docker knows Docker Hub."""
_HINT = (
    'For example: "registry.example.com/team/cache", "localhost:5000/cache", or "oci:/srv/cache"'
    " for a directory."
)


@dataclass(frozen=True)
class RepositoryName:
    """Location of a repository: `host` (with its port) and `path`, or a local `folder` (absolute).

    `scheme` is "https", "http" (which must be given explicitly) or ""; the last one means http for
    a loopback host and https for all others.
    """

    host: str = ""
    path: str = ""
    scheme: str = ""
    folder: str = ""

    @classmethod
    def parse(cls, text: str) -> RepositoryName:
        """Parse the name of a repository.

        Raises `ReferenceInvalid`, whose message contains no password that the text may hold.
        """
        if text.startswith("oci:"):
            folder = text.removeprefix("oci:").removeprefix("//")
            if not folder or "\0" in folder:
                raise ReferenceInvalid(f"{text!r} does not name a directory", hint=_HINT)
            return cls(folder=os.path.abspath(os.path.expanduser(folder)))
        scheme, host, path = _split(text)
        if not _PATH.match(path):
            raise ReferenceInvalid(
                f"{_shown(text)} does not name a repository",
                why=f"{path[:100]!r} must consist of lower-case letters, digits and `._-/`.",
                hint=_HINT,
            )
        return cls(host=host, path=path, scheme=scheme)

    @classmethod
    def of_registry(cls, text: str) -> RepositoryName:
        """Return the name of a registry, without a path, from its host or a longer URL.

        Raises `ReferenceInvalid`.
        """
        scheme, host, _ = _split(text)
        return cls(host=host, scheme=scheme)

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine."""
        return bool(_LOOPBACK.match(self.host))

    @property
    def text(self) -> str:
        """The name in the form for `parse`."""
        return f"{self.scheme}://{self}" if self.scheme else str(self)

    def __str__(self) -> str:
        if self.folder:
            return f"oci:{self.folder}"
        return f"{self.host}/{self.path}" if self.path else self.host


def is_host(text: str) -> bool:
    """Whether the first part of a reference is a host, by docker's rule, rather than a user."""
    return "." in text or ":" in text or text == "localhost"


def _split(text: str) -> tuple[str, str, str]:
    """Split a name into scheme, host and path. Raises `ReferenceInvalid` if there is no host."""
    scheme, separator, rest = text.rpartition("://")
    host, _, path = rest.rstrip("/").partition("/")
    if re.search(r"@(?!sha[0-9]+:)", rest):
        raise ReferenceInvalid(
            f"{_shown(text)} contains credentials",
            why="They would be written to logs and records.",
            hint="Use `flyte registry login HOST`.",
        )
    if (
        (separator and scheme not in ("http", "https"))
        or not _is_address(host)
        or not (is_host(host) or separator)
    ):
        raise ReferenceInvalid(
            f"{_shown(text)} does not name a registry",
            why="It does not begin with a host.",
            hint=_HINT,
        )
    return scheme, HUB if host in HUB_NAMES else host, path


def _shown(text: str) -> str:
    return repr(redacted(text))[:300]


def _is_address(text: str) -> bool:
    port = text.rpartition(":")[2]
    return bool(_HOST.match(text)) and (not port.isdigit() or int(port) <= 65535)


def check_tag(tag: str, what: str) -> str:
    """Return a tag that is valid, else raise `ReferenceInvalid`.

    `what` says in the message what the tag stands for.
    """
    if not _TAG.match(tag):
        raise ReferenceInvalid(
            f"{what} {tag!r:.200} cannot be used as a tag",
            why="A tag has at most 128 letters, digits, `_`, `.` and `-`.",
            hint="Use a shorter, plainer name.",
        )
    return tag


def redacted(text: str) -> str:
    """Mask user names and passwords before hosts; a password may contain any character."""
    return re.sub(r"(//|^(?!\S*//))\S*@(?!sha[0-9]+:)", r"\1***@", text)
