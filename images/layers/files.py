"""Files that a declaration copies into an image: finding them, and writing them as a layer.

Files that a `.dockerignore` matches are left out, with docker's semantics: patterns are relative to
the project root, and the last match decides. If the declaration names no ignore file, the
`.dockerignore` at the root applies. `__pycache__` is always left out, since Python creates it
again.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flyte_build.cas import tar
from flyte_build.cas.blobs import Batch
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value, encode
from flyte_build.cas.layer import Compression, Layer
from flyte_build.errors import FileUnstable, ImageBuildError, UsageError
from flyte_build.images.recipe import Copy

from .file_digests import FileDigests, ProjectFiles

if TYPE_CHECKING:
    from pathspec import PathSpec

_CHUNK = 1 << 20


@dataclass(frozen=True)
class CopiedFile:
    """A file or a symbolic link to copy.

    `name` is its path below the copied directory ("" for a single file), `path` its location on
    this machine, `target` that of the link.
    """

    name: str
    path: str
    size: int
    executable: bool
    content: Digest
    target: str | None = None


@dataclass(frozen=True)
class Copied:
    """The files of one copy step."""

    step: Copy
    entries: tuple[CopiedFile, ...]

    @property
    def identity(self) -> Digest:
        """Digest of everything that decides the layer, except the destination."""
        rows: list[Value] = [
            (each.name, each.executable, each.content, each.target) for each in self.entries
        ]
        return Digest.of(encode(rows))


class Copier:
    """Finder of the project files that a step copies; unchanged files are not read again."""

    def __init__(self, files: ProjectFiles) -> None:
        self._files, self._root = files, files.root

    def collect(self, step: Copy) -> Copied:
        """Return the files of a step.

        Raises `UsageError` for a missing source, and `ImageBuildError` for a file that cannot be
        copied.
        """
        top = os.path.normpath(os.path.join(self._root, step.src))
        if not _is_inside(os.path.realpath(top), os.path.realpath(self._root)):
            raise UsageError(
                f"{step.src} leads outside the project",
                hint="Copy only files below the project root.",
            )
        if not (os.path.isdir(top) if step.folder else os.path.isfile(top)):
            kind = "directory" if step.folder else "file"
            raise UsageError(
                f"No {kind} named {step.src} in the project",
                why=f"It would be copied to {step.dst}.",
                hint=f"Give a path relative to {self._root}.",
            )
        real = os.path.realpath(top)
        folder = real if step.folder else os.path.dirname(real)
        contents = FileDigests("image", folder, self._files)
        if step.folder:
            names = self._walk(
                real, _ignored(self._root, step.ignore), os.path.relpath(top, self._root)
            )
            entries = [_entry(name, f"{real}/{name}", real, contents) for name in names]
        else:
            entries = [replace(_entry(os.path.basename(real), real, "", contents), name="")]
        self._files.refuse(contents.found)
        contents.save(whole=step.folder)
        return Copied(step, tuple(sorted(entries, key=lambda each: os.fsencode(each.name))))

    def _walk(self, top: str, ignored: PathSpec[Any] | None, prefix: str) -> Iterator[str]:
        for folder, folders, files in os.walk(top):
            here = os.path.relpath(folder, top)
            base = "" if here == "." else f"{here}/"
            links = [name for name in folders if os.path.islink(f"{folder}/{name}")]
            folders[:] = [name for name in folders if name != "__pycache__" and name not in links]
            for name in [*files, *links]:
                if ignored is None or not ignored.match_file(
                    posixpath.normpath(f"{prefix}/{base}{name}")
                ):
                    yield f"{base}{name}"


def _entry(name: str, path: str, top: str, contents: FileDigests) -> CopiedFile:
    state = os.lstat(path)
    if stat.S_ISLNK(state.st_mode):
        target = os.readlink(path)
        if target.startswith("/") or not _is_inside(os.path.realpath(path), top):
            raise ImageBuildError(
                f"{path} is a symbolic link that leads outside the copied directory",
                why=f"Its target is {target}.",
                hint="Exclude it in .dockerignore, or copy its target.",
            )
        return CopiedFile(name, path, 0, False, Digest.of(os.fsencode(target)), target)
    if not stat.S_ISREG(state.st_mode):
        raise ImageBuildError(
            f"{path} is not a file that can be copied",
            why="It is a socket, a pipe or a device.",
            hint="Exclude it in .dockerignore.",
        )
    return CopiedFile(
        name, path, state.st_size, bool(state.st_mode & 0o100), contents.look(name, state)
    )


def write_layer(
    copied: Copied, place: Callable[[str], str], batch: Batch, compression: Compression
) -> Layer:
    """Write the layer of copied files, and return it.

    `place` maps the name of a file to its path in the image, without the leading `/`. Raises
    `FileUnstable` if a file changed since it was collected.
    """
    from .gzip_members import LayerWriter
    from .wheel import STANDARD, new_folders

    with batch.writer() as writer:
        layer = LayerWriter(batch, writer, compression)
        seen = set(STANDARD)
        members = sorted((os.fsencode(place(entry.name)), entry) for entry in copied.entries)
        for path, entry in members:
            for folder in new_folders(path, seen):
                layer.write(tar.folder(folder))
            if entry.target is not None:
                layer.write(tar.header(tar.Member(path, 0, target=os.fsencode(entry.target))))
                continue
            layer.write(tar.header(tar.Member(path, entry.size, entry.executable)))
            for piece in _read(entry):
                layer.write(piece)
            layer.write(tar.padding(entry.size))
        return layer.finish()


def destination(step: Copy, workdir: str, links: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that maps the name of a copied file to its path in the image.

    Paths are relative to the working directory and follow the symbolic links of the base. A single
    file keeps its name below a `dst` that ends with `/` (or is `.`); the files of a directory go
    into `dst`. Raises `UsageError` if `dst` leads outside the image.
    """
    dst = step.dst
    if not step.folder and (dst in (".", "") or dst.endswith("/")):
        dst = posixpath.join(dst, posixpath.basename(step.src))
    top = posixpath.normpath(posixpath.join("/", workdir, dst)).lstrip("/")
    if top == ".." or top.startswith("../"):
        raise UsageError(f"{step.dst} is not a path inside the image")
    for _ in range(len(links) + 1):
        at = next((name for name in links if top == name or top.startswith(f"{name}/")), None)
        if at is None:
            break
        top = posixpath.normpath(
            posixpath.join("/", posixpath.dirname(at), links[at]) + top[len(at) :]
        ).lstrip("/")
    return lambda name: f"{top}/{name}".strip("/") if name else top


def _read(entry: CopiedFile) -> Iterator[bytes]:
    sha256, size = hashlib.sha256(), 0
    with open(entry.path, "rb", buffering=0) as file:
        while (piece := file.read(_CHUNK)) and size <= entry.size:
            sha256.update(piece)
            size += len(piece)
            if size <= entry.size:
                yield piece
    if size != entry.size or Digest.from_hash(sha256) != entry.content:
        raise FileUnstable(
            f"{entry.path} changed while the image was being built",
            why="Its content is not the one that was read a moment ago.",
            hint="Run the command again when nothing writes to the project.",
        )


def _ignored(root: str, named: str) -> PathSpec[Any] | None:
    path = os.path.join(root, named or ".dockerignore")
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        if named:
            raise UsageError(
                f"No file named {named} in the project", hint=f"Give a path relative to {root}."
            ) from None
        return None
    from pathspec import PathSpec

    return PathSpec.from_lines("gitignore", _anchored(lines))


def _anchored(lines: Sequence[str]) -> Iterator[str]:
    """Yield Docker's patterns in gitignore's syntax, each anchored at the root.

    See docs.docker.com, ".dockerignore files".
    """
    for line in lines:
        text = line.strip()
        if not text or line.startswith("#"):
            continue
        negated, text = text.startswith("!"), text.removeprefix("!").strip()
        text = posixpath.normpath(text).lstrip("/")
        if text not in ("", "."):
            yield f"{'!' if negated else ''}/{text}"


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
