"""Who is told what happens while something is prepared and run."""

from __future__ import annotations

import os
import select
import stat
from typing import TYPE_CHECKING

from flyte_build.graph.reporter import Reporter

if TYPE_CHECKING:
    from flyte_build.graph.node import Node, Outcome


class RunReporter(Reporter):
    """Is told of runs, too; what a task writes goes to this process's own streams."""

    def run_started(self, name: str, url: str) -> None:
        """The run has begun."""

    def output(self, stream: int, data: bytes, seconds: float) -> int:
        """The task wrote to its standard output (1) or error (2): how much of it was passed on,
        after at most some seconds.
        """
        return pass_on(stream, data, seconds)


class Forwarder(RunReporter):
    """Tells another reporter all that it is told: for those that see to a part of it themselves."""

    def __init__(self, reporter: RunReporter) -> None:
        self._reporter = reporter

    def note(self, sentence: str) -> None:
        """Something that the user should know."""
        self._reporter.note(sentence)

    def node_started(self, node: Node, why: str) -> None:
        """A node is about to be made."""
        self._reporter.node_started(node, why)

    def node_resolved(self, outcome: Outcome) -> None:
        """A node was found or made."""
        self._reporter.node_resolved(outcome)

    def files_read(self, done: int, total: int) -> None:
        """So many of so many files were read."""
        self._reporter.files_read(done, total)

    def bytes_moved(self, done: int, total: int) -> None:
        """So many of so many bytes were sent or received."""
        self._reporter.bytes_moved(done, total)

    def step_output(self, line: str) -> None:
        """A build step has printed a line."""
        self._reporter.step_output(line)

    def published(self, place: str, count: int) -> None:
        """So many things were published to a repository."""
        self._reporter.published(place, count)

    def run_started(self, name: str, url: str) -> None:
        """The run has begun."""
        self._reporter.run_started(name, url)

    def output(self, stream: int, data: bytes, seconds: float) -> int:
        """The task wrote something."""
        return self._reporter.output(stream, data, seconds)


def pass_on(target: int, data: bytes, seconds: float) -> int:
    """Write what a descriptor takes without waiting for its reader by more than some seconds; gives
    how many bytes that is.
    """
    kind = os.fstat(target).st_mode
    has_reader = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(target)
    # A pipe that takes anything takes so much: POSIX, write().
    piece = select.PIPE_BUF if has_reader else len(data)
    taken = 0
    while taken < len(data) and select.select([], [target], [], 0.0 if taken else seconds)[1]:
        try:
            taken += os.write(target, data[taken : taken + piece])
        except BrokenPipeError:
            return len(data)  # Nobody reads any more; the log has it.
    return taken
