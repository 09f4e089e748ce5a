"""What files of a project hold, told from the stat index where nothing has changed, and which of
them are secrets.
"""

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
    """The files of the project at `root`, which go into images; those in `allowed` may do so
    although they look like secrets.
    """

    root: str
    index: StatIndex
    counters: Counters
    allowed: frozenset[str] = frozenset()

    def refuse(self, secrets: Iterable[tuple[str, str]]) -> None:
        """Raise `SecretRefused` for files (path, what kind of secret) that are not allowed."""
        refused = sorted((path, why) for path, why in secrets if path not in self.allowed)
        if refused:
            raise SecretRefused(
                "Files with secrets would have gone into the image:"
                f" {listed([path for path, _ in refused])}",
                why=f"{refused[0][0]}: {refused[0][1]}. Anyone with the image could read them.",
                hint=(
                    f"Add `{refused[0][0]}` to .dockerignore; or allow it in flyte.toml:"
                    f' bundle.allow_secrets = ["{refused[0][0]}"]'
                ),
            )


class FileDigests:
    """Looks at the files of a directory of the project; `use` is what for. `save` keeps what was
    read for the next time.
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
        # Secrets: path below the root, and what kind of secret.
        self.found: list[tuple[str, str]] = []

    @cached_property
    def _known(self) -> Mapping[str, Any]:
        return self._index.load(self._scope)

    def look(self, name: str, state: os.stat_result) -> Digest:
        """Return the bytes of the regular file `name` of the directory. Raises `FileUnstable`."""
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
        """Keep what was read; with `whole` all files of the directory were looked at, and others
        are gone.
        """
        gone = self._known.keys() - self._looked if whole else ()
        if self._read or gone:
            self._index.save(self._scope, self._read, gone)
