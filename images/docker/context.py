"""What a container is given of a project: a Dockerfile's context, or the sources of packages that
are installed there.

What stays out is said by `.dockerignore`, as Docker reads it. A look at files that have not changed
costs their states alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value, encode
from flyte_build.errors import SecretRefused, UsageError
from flyte_build.images.layers.file_digests import FileDigests, ProjectFiles

_OURS = ("flyte.lock", "**/__pycache__")  # What running tasks writes.
_ENVIRONMENTS = "**/.venv"  # No sources of anything, and large.


class Contexts:
    """Looks at those of a project's files that containers are given."""

    def __init__(self, files: ProjectFiles) -> None:
        self._files, self._root = files, os.path.realpath(files.root)

    def of_dockerfile(self, file: str) -> Digest:
        """What the context of a Dockerfile holds, in one digest: paths, modes, contents, targets of
        links.

        Raises `UsageError` for one that is not below the project's root, and `SecretRefused`.
        """
        dockerfile = os.path.join(self._root, file)
        folder = os.path.dirname(dockerfile)
        if not os.path.isfile(dockerfile):
            raise UsageError(
                f"There is no Dockerfile {dockerfile}", hint=f"It is relative to {self._root}."
            )
        if not f"{os.path.realpath(folder)}/".startswith(f"{self._root}/"):
            hint = "Its directory is sent to Docker: use one below the project's root."
            raise UsageError(f"{dockerfile} leads out of the project", hint=hint)
        contents = self._contents("context", folder)
        rows = _rows(
            folder, _walk(folder, left_out(folder), os.path.basename(dockerfile)), contents
        )
        self._files.refuse(contents.found)
        contents.save(whole=True)
        return Digest.of(encode(list(rows.values())))

    def sources(self, needed: Iterable[str]) -> list[str]:
        """The files and links of the project that what is installed from its directories may need,
        and those that are `needed` in any case.

        Files that look like secrets, and are not allowed, are not among them.
        """
        contents = self._contents("sources", self._root)
        rows = _rows(self._root, self._walk_sources(needed), contents)
        contents.save(whole=True)
        refused = {path for path, why in contents.found if not self._allows(path, why)}
        return [name for name in rows if name not in refused]

    def identity(self, paths: Sequence[str]) -> Digest:
        """What some files and directories of the project hold, of what `sources` gives."""
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
    """Patterns of what a container is not given: what the directory's .dockerignore says, and what
    running tasks writes.
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
