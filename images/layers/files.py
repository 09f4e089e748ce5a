"""Files that a declaration copies into an image: found, told apart by content, written as a layer.

What a `.dockerignore` says stays out (docker's semantics: patterns are relative to the project's
root, the last one that matches decides); without one that is named, the root's own counts.
`__pycache__` always stays out: it is made anew by whoever runs the code.
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
    """A file or a link to copy: `name` is its path in what is copied ("" for a single file); `path`
    is where it is on this machine.
    """

    name: str
    path: str
    size: int
    executable: bool
    content: Digest
    target: str | None = None


@dataclass(frozen=True)
class Copied:
    """What one step copies."""

    step: Copy
    entries: tuple[CopiedFile, ...]

    @property
    def identity(self) -> Digest:
        """The digest of all that decides the layer, but for where it goes."""
        rows: list[Value] = [
            (each.name, each.executable, each.content, each.target) for each in self.entries
        ]
        return Digest.of(encode(rows))


class Copier:
    """Finds those of a project's files that go into an image; what was read before is known from
    the stat index.
    """

    def __init__(self, files: ProjectFiles) -> None:
        self._files, self._root = files, files.root

    def collect(self, step: Copy) -> Copied:
        """The files of a step. Raises `UsageError` for what is not there, and `ImageBuildError` for
        what cannot be copied.
        """
        top = os.path.normpath(os.path.join(self._root, step.src))
        if not _is_inside(os.path.realpath(top), os.path.realpath(self._root)):
            raise UsageError(
                f"{step.src} leads out of the project",
                hint="Copy what is below the project's root.",
            )
        if not (os.path.isdir(top) if step.folder else os.path.isfile(top)):
            kind = "folder" if step.folder else "file"
            raise UsageError(
                f"There is no {kind} {step.src}",
                why=f"It would be copied to {step.dst}.",
                hint=f"It is relative to {self._root}.",
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
                f"{path} is a link that leads out of what is copied",
                why=f"It leads to {target}.",
                hint="Exclude it in .dockerignore, or copy what it leads to.",
            )
        return CopiedFile(name, path, 0, False, Digest.of(os.fsencode(target)), target)
    if not stat.S_ISREG(state.st_mode):
        raise ImageBuildError(
            f"{path} is no file that can be copied",
            why="It is a socket, a pipe or a device.",
            hint="Exclude it in .dockerignore.",
        )
    return CopiedFile(
        name, path, state.st_size, bool(state.st_mode & 0o100), contents.look(name, state)
    )


def write_layer(
    copied: Copied, place: Callable[[str], str], batch: Batch, compression: Compression
) -> Layer:
    """The layer of copied files; `place` gives the path in the image, without the first `/`, of a
    file's name.

    Raises `FileUnstable` if a file is not any more what it was when it was looked at.
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
    """Where in the image the files of a step go: relative to the working directory, and through the
    links of the base.

    A file goes into a `dst` that ends with `/` (or is `.`) under its own name; a directory's files
    go into `dst`.
    """
    dst = step.dst
    if not step.folder and (dst in (".", "") or dst.endswith("/")):
        dst = posixpath.join(dst, posixpath.basename(step.src))
    top = posixpath.normpath(posixpath.join("/", workdir, dst)).lstrip("/")
    if top == ".." or top.startswith("../"):
        raise UsageError(f"{step.dst} is no place in an image")
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
            f"{entry.path} changed while the image was made",
            why="What was read is not what was seen a moment ago.",
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
                f"There is no file {named}", hint=f"It is relative to {root}."
            ) from None
        return None
    from pathspec import PathSpec

    return PathSpec.from_lines("gitignore", _anchored(lines))


def _anchored(lines: Sequence[str]) -> Iterator[str]:
    """Docker's patterns as gitignore writes them: each begins at the root (docs.docker.com,
    ".dockerignore files").
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
