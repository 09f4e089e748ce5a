"""Digests of a project's files, cached in the stat index, and a check of the files for secrets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.statindex import StatIndex, hash_file, row
from flyte_build.errors import SecretRefused
from flyte_build.text.wording import listed
from flyte_build.workspace.sensitive import ContentWatch, by_name


@dataclass(frozen=True)
class ProjectFiles:
    """The files of the project at `root`, which may be copied into images.

    Paths in `allowed` may be copied even if they look like secrets.
    """

    root: str
    index: StatIndex
    counters: Counters
    allowed: frozenset[str] = frozenset()

    def refuse(self, secrets: Iterable[tuple[str, str]]) -> None:
        """Raise `SecretRefused` for those of the secrets, as (path, kind), that are not allowed."""
        refused = sorted((path, why) for path, why in secrets if path not in self.allowed)
        if refused:
            raise SecretRefused(
                "Cannot copy files with secrets into the image:"
                f" {listed([path for path, _ in refused])}",
                why=f"{refused[0][0]}: {refused[0][1]}. Anyone with the image could read them.",
                hint=(
                    f"Add `{refused[0][0]}` to .dockerignore, or allow it in flyte.toml:"
                    f' bundle.allow_secrets = ["{refused[0][0]}"]'
                ),
            )


class FileDigests:
    """Cached digests of the files of a project directory.

    `use` keeps the cache entries of different purposes apart; `save` stores what was read.
    """

    def __init__(self, use: str, folder: str, files: ProjectFiles) -> None:
        self._scope, self._folder, self._root = (
            f"{use}:{folder}",
            folder,
            os.path.realpath(files.root),
        )
        self._index, self._counters = files.index, files.counters
        self._read = dict[str, object]()
        self._looked = set[str]()
        # Secrets: path below the root, and the kind of secret.
        self.found: list[tuple[str, str]] = []

    @cached_property
    def _known(self) -> Mapping[str, Any]:
        return self._index.load(self._scope)

    def look(self, name: str, state: os.stat_result) -> Digest:
        """Return the digest of the regular file `name` in the directory, and check it for secrets.

        Raises `FileUnstable` if it keeps changing.
        """
        path = f"{self._folder}/{name}"
        below = os.path.relpath(path, self._root)
        before, content, why = self._known.get(name) or (None, "", "")
        self._looked.add(name)
        if before != row(state):
            watch = ContentWatch(below)
            reading = hash_file(path, self._counters, watch=watch.feed)
            content, why = str(reading.digest), watch.found
            self._read[name] = (reading.trusted, content, why)
        if why := why or by_name(below):
            self.found.append((below, why))
        return Digest(content)

    def save(self, whole: bool) -> None:
        """Store the digests that were read.

        With `whole`, every file of the directory was looked at, and entries of other files are
        removed.
        """
        gone = self._known.keys() - self._looked if whole else ()
        if self._read or gone:
            self._index.save(self._scope, self._read, gone)
