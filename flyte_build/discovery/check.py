"""Comparison of the trace of an import (all state that it has seen) with the current state."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from typing import Any

from flyte_build._alias import PACKAGE
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.hash import keyed_hex
from flyte_build.cas.statindex import hash_file, row, trusted
from flyte_build.workspace.workspace import current_folder

from .trace import OF_SHELLS, candidates, distributions, names_in, presence, times

_OURS = os.path.realpath(PACKAGE) + "/"


class Check:
    """A comparison of the trace `seen` with the current state.

    It updates `seen` with states of files and directories that can be trusted by now; `refreshed`
    is whether it did.
    """

    def __init__(self, cache: Cache, counters: Counters, seen: dict[str, Any]) -> None:
        self._cache, self._counters, self._seen = cache, counters, seen
        self.refreshed = False

    def difference(self) -> str:
        """Return a description of the first difference, or "" if there is none."""
        return next(self._differences(), "")

    def _differences(self) -> Iterator[str]:
        changed = [
            path for path, known in self._seen["files"].items() if self._file_changed(path, known)
        ]
        if changed:
            names = list(
                dict.fromkeys(
                    "flyte-build itself" if path.startswith(_OURS) else os.path.basename(path)
                    for path in changed
                )
            )
            yield f"{', '.join(names[:5])} changed"
        # A single variable is reported in preference to the whole environment ("*").
        for name, value in sorted(
            self._seen["environment"].items(), key=lambda item: item[0] == "*"
        ):
            if variable(self._cache, name) != value:
                yield (
                    "an environment variable changed"
                    if name == "*"
                    else f"the environment variable {name} changed"
                )
        yield from self._current(*self._seen["current"])
        for folder, known in self._seen["lookups"].items():
            if (
                self._folder_changed(folder, known)
                and (now := candidates(folder, known[1])) != known[2]
            ):
                yield (
                    f"in {folder}: {', '.join(sorted(set(now) ^ set(known[2])))} appeared or"
                    " disappeared"
                )
        for folder, known in self._seen["distributions"].items():
            if self._folder_changed(folder, known) and distributions(folder) != known[1]:
                yield f"the installed packages in {folder} changed"
        for folder, names in self._seen["folders"].items():
            if names_in(folder) != names:
                yield f"the names in the directory {folder} changed"
        for path, known in self._seen["stats"].items():
            if presence(path) != known:
                yield f"{path} appeared, disappeared or changed"
        for path, known in self._seen["times"].items():
            if times(path) != known:
                yield f"the times of {path} changed"

    def _current(self, names: list[str], candidates_then: list[str], folder: str) -> Iterator[str]:
        here = current_folder()
        if folder and here != folder:
            yield "the current directory changed"
        if (
            now := [] if here in self._seen["distributions"] else candidates(here, names)
        ) != candidates_then:
            yield (
                f"in the current directory: {', '.join(sorted(set(now) ^ set(candidates_then)))}"
                " appeared or disappeared"
            )

    def _file_changed(self, path: str, known: list[Any]) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return bool(known[1])
        self._counters.add(files_stated=1)
        if known[0] and row(found) == tuple(known[0]):
            return False
        if not stat.S_ISREG(found.st_mode):
            return True
        reading = hash_file(os.path.realpath(path), self._counters)
        if reading.digest.hex == known[1] and reading.trusted:
            known[0], self.refreshed = list(reading.trusted), True
        return bool(reading.digest.hex != known[1])

    def _folder_changed(self, folder: str, known: list[Any]) -> bool:
        """Whether the names in a directory may have changed since its state was recorded."""
        began = time.time_ns()
        try:
            found = row(os.stat(folder))
        except OSError:
            return True
        if known[0] and found == tuple(known[0]):
            return False
        state = trusted(found, began)
        if state:
            # Recorded before the names are compared: if they differ, the trace is not used.
            known[0], self.refreshed = list(state), True
        return True


def variable(cache: Cache, name: str) -> str | None:
    """Return a keyed hash of an environment variable (`*`: of all), or None if it is not set."""
    if name == "*":
        return keyed(
            cache,
            json.dumps(sorted(item for item in os.environ.items() if item[0] not in OF_SHELLS)),
        )
    value = os.environ.get(name)
    return None if value is None else keyed(cache, value)


def keyed(cache: Cache, value: str) -> str:
    """Return a hash keyed with the cache's secret, so that it reveals nothing about the value."""
    return keyed_hex(value.encode("utf-8", "surrogateescape"), cache.secret)
