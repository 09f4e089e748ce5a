"""The log of a run: the bytes that its task has written, and beside it their times and streams.

<run>/log        the bytes of all attempts, in the order in which they came
<run>/log.times  lines "offset seconds attempt stream": for the bytes from this offset on, the time
                 (epoch), the attempt and the stream (1 or 2; older versions wrote none)
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

from flyte_build.cas.blobs import write_all

_GRAIN = 0.01  # Resolution of recorded times, in seconds.
_CHUNK = 1 << 16
_LOOK = 0.1  # Seconds between two checks for more output.
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class LogLine(NamedTuple):
    """A line of a log, without its line end.

    `time` is when its first byte was written (epoch seconds), `stream` is 1 for standard output, 2
    for standard error, and 0 if it is not known.
    """

    time: float
    stream: int
    data: bytes


class LogWriter:
    """Writer of the output of one attempt, at the end of the log."""

    def __init__(self, folder: str, attempt: int) -> None:
        self._log = os.open(f"{folder}/log", _APPEND, 0o600)
        self._times = os.open(f"{folder}/log.times", _APPEND, 0o600)
        self._size, self._attempt = os.fstat(self._log).st_size, attempt
        self._note(time.time(), 1)

    def write(self, stream: int, data: bytes) -> None:
        """Append `data`, which came on a stream: 1 is standard output, 2 is standard error."""
        now = time.time()
        if now - self._noted >= _GRAIN or stream != self._stream:
            self._note(now, stream)
        write_all(self._log, data)
        self._size += len(data)

    def _note(self, now: float, stream: int) -> None:
        write_all(self._times, f"{self._size} {now:.3f} {self._attempt} {stream}\n".encode())
        self._noted, self._stream = now, stream

    def close(self) -> None:
        """Close the files."""
        os.close(self._log)
        os.close(self._times)


class Log:
    """Reader of the log in a run's directory: all of it, or the part of one attempt.

    `more` returns whether there may be more output. Raises `FileNotFoundError` if there is no log,
    and `LookupError` if there was no such attempt.
    """

    def __init__(
        self, folder: str, attempt: int | None = None, more: Callable[[], bool] = lambda: False
    ) -> None:
        # Closed when this object is deleted.
        self._file = open(f"{folder}/log", "rb")  # noqa: SIM115
        self._folder = folder
        self._attempt, self._more = attempt, more
        if attempt is not None:
            self._file.seek(self._times.begin(attempt))

    @cached_property
    def _times(self) -> _Times:
        return _Times(f"{self._folder}/log.times")

    def skip_to_last(self, lines: int) -> None:
        """Skip all existing output except the last lines."""
        start, end = self._file.tell(), self._end()
        at, left = end, lines
        if end > start and self._read_at(end - 1, 1) == b"\n":
            left += 1
        while at > start:
            size = min(_CHUNK, at - start)
            at -= size
            block = self._read_at(at, size)
            if (found := block.count(b"\n")) < left:
                left -= found
                continue
            position = size
            for _ in range(left):
                position = block.rindex(b"\n", 0, position)
            at += position + 1
            break
        self._file.seek(at)

    def chunks(self) -> Iterator[bytes]:
        """Yield the existing bytes, then new ones as they are written."""
        going = True
        while going:
            going = self._more()  # Called before reading, so that nothing is missed.
            end = self._end()
            while (left := end - self._file.tell()) > 0:
                yield self._file.read(min(_CHUNK, left))
            if going:
                time.sleep(_LOOK)

    def lines(self) -> Iterator[LogLine]:
        """Yield the lines that are there, and those that come."""
        at, rest = self._file.tell(), b""
        for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield LogLine(*self._times.at(at), line)
                at += len(line) + 1
        if rest:
            yield LogLine(*self._times.at(at), rest)

    def _end(self) -> int:
        size = os.fstat(self._file.fileno()).st_size
        return size if self._attempt is None else min(size, self._times.end(self._attempt, size))

    def _read_at(self, offset: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, offset)


class _Times:
    """Recorded times and attempts; more are read while the run continues."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115  # As above.
        self._rest = b""
        self._offsets: list[int] = []
        self._written: list[tuple[float, int]] = []
        self._begins: dict[int, int] = {}

    def _refresh(self) -> None:
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            offset, *fields = line.split(b" ")
            if len(fields) not in (2, 3):  # Truncated by a full disk.
                continue
            seconds, attempt, stream = (*fields, b"0")[:3]
            self._offsets.append(int(offset))
            self._written.append((float(seconds), int(stream)))
            self._begins.setdefault(int(attempt), int(offset))

    def at(self, offset: int) -> tuple[float, int]:
        """Return when the byte at `offset` came, and on which stream."""
        self._refresh()
        return self._written[bisect_right(self._offsets, offset) - 1]

    def begin(self, attempt: int) -> int:
        """Return the offset at which an attempt's output begins; raises `LookupError`."""
        self._refresh()
        return self._begins[attempt]

    def end(self, attempt: int, size: int) -> int:
        """Return the offset at which it ends: that of the next attempt, or the end of the log."""
        self._refresh()
        return self._begins.get(attempt + 1, size)
