"""Package indexes that the user has configured for uv, with their credentials.

They come from uv's and pip's environment variables and from uv's configuration files. A download
gets the credentials of an index with the same scheme, host and port, and no others, as in uv itself
(uv's documentation: "Package indexes", "Configuration files", "HTTP credentials").
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from .uv import OF_PIP, indexes

_VARIABLES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_INDEX_URL")
_NAMED = re.compile(r"(?:([A-Za-z0-9_.-]+)=)?(.*)\Z", re.S)  # `url`, or `name=url`.
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Index:
    """A configured package index.

    `url` has no credentials; `source` is the variable or the file that names the index; `login` is
    a user name and a password, or None.
    """

    url: str
    name: str
    source: str
    login: tuple[str, str] | None = field(repr=False)

    def __str__(self) -> str:
        return f"the index {self.url} ({self.source})"


class Indexes:
    """Configured indexes, by descending priority."""

    def __init__(self, indexes: Sequence[Index]) -> None:
        self._indexes = tuple(indexes)

    @classmethod
    def configured(cls, root: str, variables: Mapping[str, str]) -> Indexes:
        """Return the indexes of the variables and of uv's files for a project at `root`.

        Files and URLs that cannot be parsed are skipped: uv reports them.
        """
        known = indexes(variables)
        named = [
            (*_split(each), _given(source, variables))
            for source in _VARIABLES
            for each in known.get(source, "").split()
        ]
        for path, table in _tables(root, variables):
            named += [(name, url, path) for name, url in _of_table(table)]
        found = []
        for name, url, source in named:
            try:
                found.append(_index(name, url, source, variables))
            except ValueError:  # Not a URL: uv reports it.
                continue
        return cls(found)

    def of(self, url: str) -> Index | None:
        """Return the index at the scheme, host and port of `url`, or None.

        Of several, one with credentials is preferred, then the one with the longest common path.
        """
        there = [each for each in self._indexes if _origin(each.url) == _origin(url)]
        return max(
            there, key=lambda each: (each.login is not None, _alike(each.url, url)), default=None
        )

    def advice(self, url: str) -> str:
        """Return a hint, in full sentences: how to provide credentials for `url`."""
        index, parts = self.of(url), urlsplit(url)
        netrc = f"add them to ~/.netrc, for the machine {parts.hostname}"
        if index and index.name:
            user, password = _names(index.name)
            return f"Set {user} and {password}, or {netrc}."
        place = index.source if index and "/" not in index.source else "UV_INDEX"
        return (
            f"Put the user name and the password into the index URL in the variable {place}, or"
            f" {netrc}."
        )


def _index(name: str, url: str, source: str, variables: Mapping[str, str]) -> Index:
    parts = urlsplit(url)
    plain = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    user, password = map(variables.get, _names(name)) if name else (None, None)
    if user is None and password is None and "@" in parts.netloc:
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Index(
        plain,
        name,
        source,
        None if user is None and password is None else (user or "", password or ""),
    )


def _names(index: str) -> tuple[str, str]:
    """Return the names of the variables that hold the credentials of an index."""
    name = re.sub(r"[^A-Z0-9]", "_", index.upper())
    return f"UV_INDEX_{name}_USERNAME", f"UV_INDEX_{name}_PASSWORD"


def _given(variable: str, variables: Mapping[str, str]) -> str:
    """Return the variable that the user has set: `variable` itself, or its equivalent in pip."""
    return (
        variable
        if variable in variables
        else next(name for name, names in OF_PIP.items() if variable in names)
    )


def _split(text: str) -> tuple[str, str]:
    found = _NAMED.match(text)
    return (found[1] or "", found[2]) if found else ("", text)


def _tables(root: str, variables: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield uv's configuration files for a project, each with its table.

    The order is: the file nearest to the project, the user's, the machine's.
    """
    if variables.get("UV_NO_CONFIG", "").lower() in ("1", "true"):
        return
    if given := variables.get("UV_CONFIG_FILE"):
        yield given, _read(given)
        return
    folder, above = root, ""
    while folder != above:
        names = [
            path
            for name in ("uv.toml", "pyproject.toml")
            if os.path.isfile(path := os.path.join(folder, name))
        ]
        if found := next(((path, table) for path in names if (table := _read(path))), None):
            yield found
            break
        folder, above = os.path.dirname(folder), folder
    folders = [
        variables.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"),
        *variables.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"),
    ]
    yield from (
        (path, _read(path))
        for each in (*folders, "/etc")
        if os.path.isfile(path := f"{each}/uv/uv.toml")
    )


def _read(path: str) -> Mapping[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
        table: Mapping[str, Any] = (
            document.get("tool", {}).get("uv", {}) if path.endswith("pyproject.toml") else document
        )
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return table


def _of_table(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name ("" if there is none) and the URL of each index in a configuration file."""
    try:
        for each in table.get("index", ()):
            if each.get("authenticate") != "never":
                yield str(each.get("name", "")), str(each["url"])
        for options in (table, table.get("pip", {})):
            yield from (
                ("", str(url))
                for url in (*options.get("extra-index-url", ()), options.get("index-url"))
                if url
            )
    except (KeyError, TypeError, AttributeError):
        return


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # The port is not a number: it matches none.
        port = None
    return parts.scheme, parts.hostname or "", port


def _alike(one: str, other: str) -> int:
    """Return the length of the common path of two URLs."""
    return len(os.path.commonpath([urlsplit(url).path or "/" for url in (one, other)]))
