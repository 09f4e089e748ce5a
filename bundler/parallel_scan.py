"""A single pass over a new tree by two processes, which hash the files and write the packs.

The pack of a file depends on paths and sizes only, and these are known before anything is read. So
two processes take one pack after another, read its files, and write it. This only ever saves work:
a pack with anything unexpected (a file that changes, cannot be read, or contains a secret) is left
out, and so is one that a process had taken when it died; the caller reads these files as usual.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from operator import itemgetter
from typing import NamedTuple

from flyte_build.cas import tar
from flyte_build.cas.blobs import Batch, Blobs
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.layer import Layer, write_layer
from flyte_build.cas.statindex import Row, trusted
from flyte_build.workspace import sensitive

from .draft import Draft, Unread
from .packs import CODE, LIMIT, cut, read_whole
from .snapshot import Contents, File
from .tree import Entry, Tree

_WORTHWHILE = 500  # Minimum files for which a second process pays.

# Result for one file: its state if trusted, and its form in the tree.
_Reading = tuple[Row, File]
# Result for one pack: its position, each file's reading (None for a link), the layer, and the
# digest of its part of the tree.
_Pack = tuple[int, list[_Reading | None], tuple[str, int, str], str]


class _Wanted(NamedTuple):
    """A file to read, or a link with its known target."""

    path: bytes
    size: int
    file: Unread | None
    target: bytes = b""


def read(
    root: str,
    drafts: list[Draft],
    blobs: Blobs | None,
    contents: Contents,
    counters: Counters,
    progress: Callable[[int, int], None],
) -> list[Unread]:
    """Read the files of a new tree into their drafts, and write its packs to `blobs`, if given.

    Their layers are stored in `contents`. Returns the files that are still unread.
    """
    unread = [each for draft in drafts for each in draft.unread]
    if len(unread) < _WORTHWHILE:
        return unread
    wanted = []
    for draft in drafts:
        above = os.fsencode(draft.path)
        wanted += [
            _Wanted(above + os.fsencode(each.name), each.state[1], each) for each in draft.unread
        ]
        wanted += [
            _Wanted(above + name, size, None, target)
            for name, (_, size, target) in draft.files.items()
        ]
    wanted.sort(key=itemgetter(0))
    parts = cut([(each.path, each.size) for each in wanted])
    work = _Work(os.fsencode(root), [[wanted[at] for at in part] for part in parts], blobs)
    with _tickets(len(parts)) as tickets, work.helped(tickets) as helper:
        packs, counted = work.take(
            tickets, lambda number: progress(number * len(unread) // len(parts), len(unread))
        )
        more, counted_there = helper()
    left = set(range(len(parts)))
    for number, readings, (digest, size, diff_id), part in [*packs, *more]:
        for each, reading in zip(work.parts[number], readings, strict=True):
            if each.file and reading:
                each.file.draft.take(each.file.name, *reading)
        if blobs:
            contents.layers[Digest(part)] = Layer(Digest(digest), size, Digest(diff_id))
        left.discard(number)
    for totals in (counted, counted_there):
        counters.add(**totals)
    return [each.file for number in left for each in work.parts[number] if each.file]


class _Unpackable(Exception):
    """A pack contains something unexpected."""


class _Work:
    """The packs of one tree, taken by ticket."""

    def __init__(self, root: bytes, parts: list[list[_Wanted]], blobs: Blobs | None) -> None:
        self.parts, self._root, self._blobs = parts, root, blobs

    def take(
        self, tickets: int, progress: Callable[[int], None]
    ) -> tuple[list[_Pack], dict[str, int]]:
        """Build packs as long as there are tickets; return them and the counters."""
        counters = Counters()
        packs: list[_Pack] = []
        owner = os.getppid()
        with (
            Blobs(self._blobs.folder, "", counters).batch() if self._blobs else nullcontext()
        ) as batch:
            while (ticket := os.read(tickets, 1)) and os.getppid() == owner:
                progress(ticket[0])
                try:
                    packs.append(self._pack(ticket[0], batch, counters))
                except (_Unpackable, OSError):
                    continue
        return packs, counters.snapshot()

    def _pack(self, number: int, batch: Batch | None, counters: Counters) -> _Pack:
        readings: list[_Reading | None] = []
        blocks = self._blocks(self.parts[number], readings, counters)
        if batch is None:  # The files are only read.
            deque(blocks, maxlen=0)
            return number, readings, ("", 0, ""), ""
        layer = write_layer(blocks, batch)
        entries = [
            Entry(each.path, *(reading[1] if reading else ("l", each.size, each.target)))
            for each, reading in zip(self.parts[number], readings, strict=True)
        ]
        return (
            number,
            readings,
            (str(layer.digest), layer.size, str(layer.diff_id)),
            str(Tree(entries).digest),
        )

    def _blocks(
        self, part: list[_Wanted], readings: list[_Reading | None], counters: Counters
    ) -> Iterator[bytes]:
        began, files, size = time.time_ns(), 0, 0
        for each in part:
            if each.file is None:
                yield tar.header(tar.Member(CODE + each.path, 0, target=each.target))
                readings.append(None)
                continue
            state, data, path = each.file.state, self._data(each), each.file.path
            files, size = files + 1, size + len(data)
            if sensitive.by_name(path) or sensitive.by_content(path, data):
                raise _Unpackable(f"{path} holds a secret")
            executable = bool(state[0] & 0o100)
            content = hashlib.sha256(data).hexdigest().encode()
            readings.append(
                (trusted(state, began), ("x" if executable else "f", len(data), content))
            )
            yield tar.header(tar.Member(CODE + each.path, len(data), executable))
            yield data
            yield tar.padding(len(data))
        counters.add(files_read=files, bytes_hashed=size)

    def _data(self, each: _Wanted) -> bytes:
        assert each.file is not None
        if each.size > LIMIT:
            raise _Unpackable(f"{each.path!r} is too large to be held in memory")
        data, state = read_whole(self._root + b"/" + each.path, each.size)
        if len(data) != each.size or state != each.file.state:
            raise _Unpackable(f"{each.path!r} changed")
        return data

    @contextmanager
    def helped(self, tickets: int) -> Iterator[Callable[[], tuple[list[_Pack], dict[str, int]]]]:
        """Start a second process that takes tickets; yield a function that waits for its result.

        The result is empty if the process died.
        """
        reading, writing = os.pipe()
        child = _fork()
        if child is None:
            os.close(reading)
            os.close(writing)
            yield lambda: ([], {})
            return
        if not child:
            try:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.close(reading)
                with open(writing, "wb") as out:
                    out.write(marshal.dumps(self.take(tickets, lambda number: None)))
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as answer:

            def results() -> tuple[list[_Pack], dict[str, int]]:
                try:
                    found: tuple[list[_Pack], dict[str, int]] = marshal.loads(answer.read())
                    return found
                except (EOFError, ValueError, TypeError):
                    return [], {}

            try:
                yield results
            finally:
                # Its result has been read, or is no longer needed.
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _fork() -> int | None:
    """Fork, or return None where that is unsafe (with threads, on macOS) or fails."""
    if sys.platform != "linux" or (
        "threading" in sys.modules and sys.modules["threading"].active_count() > 1
    ):
        return None
    try:
        return os.fork()
    except OSError:
        return None


@contextmanager
def _tickets(count: int) -> Iterator[int]:
    """Yield a pipe with one byte for each pack: its reader takes that pack.

    A pipe delivers each byte to one reader only.
    """
    reading, writing = os.pipe()
    try:
        os.write(writing, bytes(range(count)))
        os.close(writing)
        yield reading
    finally:
        os.close(reading)
