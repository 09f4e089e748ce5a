"""What an attempt writes, on its way to the log and to whoever reads along. Nothing is read while
nobody takes what was read.
"""

from __future__ import annotations

from flyte_build.runner.action import Action
from flyte_build.runner.history.log import LogWriter

from .protocol import Sink


class Output:
    """The output of one attempt: all of it goes to the log, and to `sink`, which may take it
    slowly.
    """

    def __init__(self, action: Action, sink: Sink) -> None:
        self._log, self._sink = LogWriter(action.folder, action.attempt), sink
        self._held: list[tuple[int, bytes]] = []

    @property
    def is_held(self) -> bool:
        """Whether something was written that nobody has taken yet."""
        return bool(self._held)

    def take(self, stream: int, data: bytes) -> None:
        """The attempt has written `data` to its standard output (1) or error (2)."""
        self._log.write(stream, data)
        self._held.append((stream, data))

    def pass_on(self, seconds: float, leave: bool) -> None:
        """Pass on what is held, waiting at most some seconds for its reader; with `leave` nobody is
        waited for, and it is in the log.
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
