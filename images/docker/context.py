"""Project files that a container receives: a Dockerfile's context, or sources of packages.

Files that `.dockerignore` matches are left out, with Docker's semantics. Files that have not
changed since the last time are not read again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value, encode
from flyte_build.errors import SecretRefused, UsageError
from flyte_build.images.layers.file_digests import FileDigests, ProjectFiles

_OURS = ("flyte.lock", "**/__pycache__")  # Written by running tasks.
_ENVIRONMENTS = "**/.venv"  # Large, and never sources.


class Contexts:
    """Finder of the project files that containers receive."""

    def __init__(self, files: ProjectFiles) -> None:
        self._files, self._root = files, os.path.realpath(files.root)

    def of_dockerfile(self, file: str) -> Digest:
        """Return one digest of a Dockerfile's context: paths, modes, contents, targets of links.

        Raises `UsageError` if the Dockerfile is missing or outside the project root, and
        `SecretRefused`.
        """
        dockerfile = os.path.join(self._root, file)
        folder = os.path.dirname(dockerfile)
        if not os.path.isfile(dockerfile):
            raise UsageError(
                f"No Dockerfile at {dockerfile}", hint=f"Give a path relative to {self._root}."
            )
        if not f"{os.path.realpath(folder)}/".startswith(f"{self._root}/"):
            hint = "Use a Dockerfile below the project root: its directory is sent to Docker."
            raise UsageError(f"{dockerfile} leads outside the project", hint=hint)
        contents = self._contents("context", folder)
        rows = _rows(
            folder, _walk(folder, left_out(folder), os.path.basename(dockerfile)), contents
        )
        self._files.refuse(contents.found)
        contents.save(whole=True)
        return Digest.of(encode(list(rows.values())))

    def sources(self, needed: Iterable[str]) -> list[str]:
        """Return the project's files and links that installing from its directories may need.

        Files in `needed` are included even if an ignore rule matches them. Files that look like
        secrets and are not allowed are left out.
        """
        contents = self._contents("sources", self._root)
        rows = _rows(self._root, self._walk_sources(needed), contents)
        contents.save(whole=True)
        refused = {path for path, why in contents.found if not self._allows(path, why)}
        return [name for name in rows if name not in refused]

    def identity(self, paths: Sequence[str]) -> Digest:
        """Return one digest of those files of `sources` that are at or below some paths."""
        contents = self._contents("sources", self._root)
        names = (
            name
            for name in self._walk_sources()
            if any(path in (".", name) or name.startswith(f"{path}/") for path in paths)
        )
        rows = _rows(self._root, names, contents)
        contents.save(whole=False)
        return Digest.of(encode(list(rows.values())))

    def _walk_sources(self, needed: Iterable[str] = ()) -> list[str]:
        patterns = [*left_out(self._root), _ENVIRONMENTS, *(f"!{name}" for name in needed)]
        return _walk(self._root, patterns, ".dockerignore")

    def _contents(self, use: str, folder: str) -> FileDigests:
        return FileDigests(use, folder, self._files)

    def _allows(self, path: str, why: str) -> bool:
        try:
            self._files.refuse([(path, why)])
        except SecretRefused:
            return False
        return True


def left_out(folder: str) -> list[str]:
    """Return the patterns of files that a container does not receive.

    They are those of the directory's .dockerignore, and of files that running tasks write.
    """
    patterns = [*_OURS]
    if os.path.exists(ignore := f"{folder}/.dockerignore"):
        with open(ignore, encoding="utf-8") as lines:
            patterns += [
                line.strip() for line in lines if line.strip() and not line.startswith("#")
            ]
    return patterns


def _walk(folder: str, patterns: list[str], kept: str) -> list[str]:
    from docker.utils.build import exclude_paths

    return sorted(exclude_paths(folder, patterns, dockerfile=kept))


def _rows(folder: str, names: Iterable[str], contents: FileDigests) -> dict[str, Value]:
    rows: dict[str, Value] = {}
    for name in names:
        path = os.path.join(folder, name)
        state = os.lstat(path)
        if stat.S_ISLNK(state.st_mode):
            rows[name] = [name, os.readlink(path)]
        elif stat.S_ISREG(state.st_mode):
            rows[name] = [name, bool(state.st_mode & 0o100), contents.look(name, state)]
    return rows
