"""Trees of real files: written, read, compared, changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from flyte_build.bundler import packs
from flyte_build.bundler.tree import Entry
from flyte_build.cas import tar
from flyte_build.cas.digest import Digest

ROOT = os.geteuid() == 0


as_root = pytest.mark.skipif(not ROOT, reason="mounting needs root")


class Link(bytes):
    """A link to this target, in a description of files."""


class Executable(bytes):
    """An executable file of these bytes, in a description of files."""


Files = Mapping[str, bytes] | Mapping[bytes, bytes] | Mapping[str | bytes, bytes]


def write_files(root: str | Path, files: Files) -> str:
    """Write these files and links below `root`, and return `root`."""
    os.makedirs(root, exist_ok=True)
    for name, content in files.items():
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if isinstance(content, Link):
            os.symlink(bytes(content), path)
            continue
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o755 if isinstance(content, Executable) else 0o644)
    return os.fspath(root)


def read_files(root: str | Path) -> dict[bytes, bytes]:
    """Return everything below `root`, as `write_files` takes it."""
    found: dict[bytes, bytes] = {}
    top = os.fsencode(root)
    for here, folders, names in os.walk(top):
        for name in names + [name for name in folders if os.path.islink(os.path.join(here, name))]:
            path = os.path.join(here, name)
            if os.path.islink(path):
                content: bytes = Link(os.readlink(path))
            else:
                with open(path, "rb") as file:
                    content = file.read()
                if os.stat(path).st_mode & 0o100:
                    content = Executable(content)
            found[os.path.relpath(path, top)] = content
    return found


def entries_of(files: Files) -> list[Entry]:
    """Return the entries of the tree of these files."""
    return [
        (
            Entry(os.fsencode(name), "l", len(content), bytes(content))
            if isinstance(content, Link)
            else Entry(
                os.fsencode(name),
                "x" if isinstance(content, Executable) else "f",
                len(content),
                Digest.of(content).hex.encode(),
            )
        )
        for name, content in files.items()
    ]


def same(one: Files, other: Files) -> bool:
    """Whether these are the same paths, kinds, modes and contents."""
    return set(entries_of(one)) == set(entries_of(other))


def archive(files: Files) -> bytes:
    """Return the expected tar of a pack of these files."""
    return (
        b"".join(
            map(member, sorted((os.fsencode(name), content) for name, content in files.items()))
        )
        + tar.END
    )


def member(item: tuple[bytes, bytes]) -> bytes:
    """Return one file or link as a member of a pack."""
    name, content = item
    if isinstance(content, Link):
        return tar.header(tar.Member(packs.CODE + name, 0, target=bytes(content)))
    head = tar.header(tar.Member(packs.CODE + name, len(content), isinstance(content, Executable)))
    return head + bytes(content) + tar.padding(len(content))


@contextmanager
def mounted(where: str | Path, options: str) -> Iterator[str]:
    """Mount a file system in memory with these options."""
    os.makedirs(where, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", where], check=True)
    try:
        yield os.fspath(where)
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def flip(path: str | Path, at: int = -1) -> None:
    """Change one bit of a file, even of a protected one."""
    data = bytearray(Path(path).read_bytes())
    data[at] ^= 1
    overwrite(path, bytes(data))


def overwrite(path: str | Path, data: bytes) -> None:
    """Overwrite a file's bytes in place, even if it is protected, once the clock has moved on.

    The clock is that of file systems.
    """
    mode = os.stat(path).st_mode
    clock_moves(os.path.dirname(path))
    os.chmod(path, 0o644)
    Path(path).write_bytes(data)
    os.chmod(path, mode)


def clock_moves(folder: str | Path) -> None:
    """Wait until a file that changes gets another time than one that changed before."""
    with tempfile.NamedTemporaryFile(dir=folder if ROOT else None) as probe:
        first = os.stat(probe.name).st_ctime_ns
        while os.stat(probe.name).st_ctime_ns < first + 25_000_000:
            os.utime(probe.name)


@contextmanager
def temporary() -> Iterator[Path]:
    """Yield a directory for one example of a property."""
    folder = tempfile.mkdtemp(prefix="flyte-test-")
    try:
        yield Path(folder)
    finally:
        for here, _, _ in os.walk(folder):
            os.chmod(here, 0o700)
        shutil.rmtree(folder)
