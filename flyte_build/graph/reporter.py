"""Who is told what happens while something is prepared and run."""

from __future__ import annotations

import os
import select
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .node import Node, Outcome


class Listener:
    """Is told what happens; this one passes on what the user should know, and keeps the rest to itself."""

    def said(self, sentence: str) -> None:
        """Something that the user should know."""
        print(f"note: {sentence}", file=sys.stderr)

    def begun(self, node: Node, why: str) -> None:
        """A node is about to be made."""

    def resolved(self, outcome: Outcome) -> None:
        """A node was found or made."""

    def progress(self, done: int, total: int) -> None:
        """So many of so many files were read."""

    def transferred(self, done: int, total: int) -> None:
        """So many of so many bytes were sent or received."""

    def executing(self, line: str) -> None:
        """A build step has printed a line."""

    def published(self, place: str, count: int) -> None:
        """So many things were published to a repository."""

    def started(self, name: str, url: str) -> None:
        """The run has begun."""

    def output(self, stream: int, data: bytes, seconds: float) -> int:
        """The task wrote to its standard output (1) or error (2): how much of it was passed on, after at most some seconds."""
        return pass_on(stream, data, seconds)


def pass_on(target: int, data: bytes, seconds: float) -> int:
    """Write what a descriptor takes without waiting for its reader by more than some seconds; gives how many bytes that is."""
    kind = os.fstat(target).st_mode
    has_reader = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(target)
    piece = select.PIPE_BUF if has_reader else len(data)  # A pipe that takes anything takes so much: POSIX, write().
    taken = 0
    while taken < len(data) and select.select([], [target], [], 0.0 if taken else seconds)[1]:
        try:
            taken += os.write(target, data[taken : taken + piece])
        except BrokenPipeError:
            return len(data)  # Nobody reads any more; the log has it.
    return taken
