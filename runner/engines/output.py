"""Forwarding of a worker's output to the log and to a reader.

Nothing more is read while the reader has not taken what was read before.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Iterable, Iterator

from flyte_build.cas.folder import make_below
from flyte_build.runner.action import Action, label
from flyte_build.runner.history.log import LogWriter

from .protocol import Sink

_LONGEST = 1 << 16  # Longer lines are cut, where each begins with a name.


def output_of(action: Action, sink: Sink) -> Output:
    """Return the output of an attempt: lines of a child begin with its name."""
    name = label(action.call.task.operational.short_name, action.id) if action.parent else ""
    return Output(action.folder, action.attempt, name, sink)


class Output:
    """Output that goes to the log in the directory `folder`, and to `sink`, which may be slow.

    With a `name`, lines begin with it, except in the log, which is made only if there is output.
    """

    def __init__(self, folder: str, attempt: int, name: str, sink: Sink) -> None:
        self._folder, self._attempt, self._sink = folder, attempt, sink
        self._has_name = bool(name)
        self._log: LogWriter | None = None
        if not self._has_name:
            self._written()
        self._prefix = f"[{name}] ".encode()
        self._held: deque[tuple[int, bytes]] = deque()
        self._begun: dict[int, bytes] = {}  # Beginnings of lines, by stream.

    @property
    def is_held(self) -> bool:
        """Whether there is output that the reader has not taken yet."""
        return bool(self._held)

    @property
    def descriptor(self) -> int:
        """The descriptor that is writable as soon as held output can be passed on."""
        return self._sink.output_descriptor(self._held[0][0])

    def take(self, stream: int, data: bytes) -> None:
        """Accept `data` that was written to its standard output (1) or error (2)."""
        self._written().write(stream, data)
        if not self._has_name:
            self._held.append((stream, data))
            return
        *lines, begun = (self._begun.get(stream, b"") + data).split(b"\n")
        if len(begun) > _LONGEST:
            lines.append(begun)
            begun = b""
        self._begun[stream] = begun
        self._held += ((stream, piece) for piece in _joined(self._prefix, lines))

    def pass_on(self, leave: bool) -> None:
        """Pass on as much of the held output as the reader takes now.

        With `leave`, the rest is dropped; the log contains it.
        """
        while self._held:
            stream, data = self._held.popleft()
            taken = self._sink.output(stream, data)
            if taken < len(data) and not leave:
                self._held.appendleft((stream, data[taken:]))
                return

    def end(self) -> None:
        """Accept that no more output will come: a line that has begun is whole."""
        for stream, line in self._begun.items():
            if line:
                self._held.append((stream, self._prefix + line + b"\n"))
        self._begun.clear()

    def close(self) -> None:
        """Close the log."""
        if self._log:
            self._log.close()

    def _written(self) -> LogWriter:
        if self._log is None:
            make_below(self._folder)
            self._log = LogWriter(self._folder, self._attempt)
        return self._log


def _joined(prefix: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with a prefix, joined to pieces that a pipe takes whole or not at all.

    So lines of different attempts are not mixed, unless they are longer than such a piece.
    """
    piece = b""
    for line in lines:
        if piece and len(piece) + len(prefix) + len(line) + 1 > select.PIPE_BUF:
            yield piece
            piece = b""
        piece += prefix + line + b"\n"
    if piece:
        yield piece
