"""Forwarding of an attempt's output to the log and to a reader.

Nothing more is read while the reader has not taken what was read before.
"""

from __future__ import annotations

from flyte_build.runner.action import Action
from flyte_build.runner.history.log import LogWriter

from .protocol import Sink


class Output:
    """Output of one attempt; all of it goes to the log, and to `sink`, which may be slow."""

    def __init__(self, action: Action, sink: Sink) -> None:
        self._log, self._sink = LogWriter(action.folder, action.attempt), sink
        self._held: list[tuple[int, bytes]] = []

    @property
    def is_held(self) -> bool:
        """Whether there is output that the reader has not taken yet."""
        return bool(self._held)

    def take(self, stream: int, data: bytes) -> None:
        """Accept `data` that the attempt wrote to its standard output (1) or error (2)."""
        self._log.write(stream, data)
        self._held.append((stream, data))

    def pass_on(self, seconds: float, leave: bool) -> None:
        """Pass on held output, waiting at most some seconds for the reader.

        With `leave`, output that is not taken in that time is dropped; the log contains it.
        """
        while self._held:
            stream, data = self._held.pop(0)
            taken = self._sink(stream, data, seconds)
            if taken < len(data) and not leave:
                self._held.insert(0, (stream, data[taken:]))
                return

    def close(self) -> None:
        """Close the log."""
        self._log.close()
