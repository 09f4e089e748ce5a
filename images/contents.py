"""What files of a project hold, told from the stat index where nothing has changed, and which of them are secrets."""

from __future__ import annotations

import os
from typing import Protocol

from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.statindex import StatIndex, hash_file, row


class Watch(Protocol):
    """Looks at a file while it is read."""

    found: str

    def feed(self, piece: bytes) -> None:
        """Look at the next piece; `found` says what kind of secret the file is, if it is one."""


class Secrets(Protocol):
    """What files must not go into an image. Paths are relative to the project's root."""

    def by_name(self, path: str) -> str:
        """What kind of secret a file of this path is, or ""."""

    def watch(self, path: str) -> Watch:
        """What is to look at the content of a file."""

    def refuse(self, found: list[tuple[str, str]]) -> None:
        """Raise `SecretRefused` for files (path, what kind of secret) that are not allowed."""


class Contents:
    """Looks at the files of a folder of the project at `root`; `use` is what for. `save` keeps what was read for the next time."""

    def __init__(self, use: str, folder: str, root: str, index: StatIndex, counters: Counters, secrets: Secrets) -> None:
        self._scope, self._folder, self._root = f"{use}:{folder}", folder, os.path.realpath(root)
        self._index, self._counters, self._secrets = index, counters, secrets
        self._known, self._read = index.load(self._scope), dict[str, object]()
        self._looked = set[str]()
        self.found: list[tuple[str, str]] = []  # Secrets: path below the root, and what kind of secret.

    def look(self, name: str, state: os.stat_result) -> Digest:
        """What a regular file holds, whose path in the folder is `name`. Raises `FileUnstable`."""
        path = f"{self._folder}/{name}"
        below = os.path.relpath(path, self._root)
        before, content, why = self._known.get(name) or (None, "", "")
        self._looked.add(name)
        if before != row(state):
            watch = self._secrets.watch(below)
            reading = hash_file(path, self._counters, watch=watch.feed)
            content, why = str(reading.digest), watch.found
            self._read[name] = (reading.trusted, content, why)
        if why := why or self._secrets.by_name(below):
            self.found.append((below, why))
        return Digest(content)

    def save(self, whole: bool) -> None:
        """Keep what was read; with `whole` all files of the folder were looked at, and others are gone."""
        gone = self._known.keys() - self._looked if whole else ()
        if self._read or gone:
            self._index.save(self._scope, self._read, gone)
