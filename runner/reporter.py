"""Reporter of the events of preparations and runs."""

from __future__ import annotations

import os
import select
import stat
from typing import TYPE_CHECKING, NamedTuple

from flyte_build.graph.reporter import Reporter

if TYPE_CHECKING:
    from flyte_build.graph.node import Node, Outcome

    from .result import Phase, Result


class ActionChange(NamedTuple):
    """New phase of a child action; `why` is the type and the first line of its error, or ""."""

    id: str
    parent: str
    task: str
    group: str
    phase: Phase
    why: str = ""


class RunReporter(Reporter):
    """Reporter of runs, too; a task's output goes to this process's own streams."""

    def run_started(self, name: str, url: str) -> None:
        """Report that a run has begun."""

    def action_changed(self, change: ActionChange) -> None:
        """Report that a child action waits, runs or has ended."""

    def output(self, stream: int, data: bytes) -> int:
        """Pass on bytes that the task wrote to its standard output (1) or error (2).

        Returns how many bytes were passed on without waiting for their reader.
        """
        return pass_on(self.output_descriptor(stream), data)

    def output_descriptor(self, stream: int) -> int:
        """Return the descriptor that output of a stream is passed on to."""
        return stream


class Forwarder(RunReporter):
    """Reporter that forwards all events to another one.

    It is the base of reporters that handle some events themselves.
    """

    def __init__(self, reporter: RunReporter) -> None:
        self._reporter = reporter

    def note(self, sentence: str) -> None:
        """Report a sentence that the user should know."""
        self._reporter.note(sentence)

    def node_started(self, node: Node, why: str) -> None:
        """Report that a node is about to be made."""
        self._reporter.node_started(node, why)

    def node_resolved(self, outcome: Outcome) -> None:
        """Report that a node was found or made."""
        self._reporter.node_resolved(outcome)

    def files_read(self, done: int, total: int) -> None:
        """Report the number of files that were read, and their total."""
        self._reporter.files_read(done, total)

    def bytes_moved(self, done: int, total: int) -> None:
        """Report the number of bytes that were sent or received, and their total."""
        self._reporter.bytes_moved(done, total)

    def step_output(self, line: str) -> None:
        """Report a line that a build step printed."""
        self._reporter.step_output(line)

    def published(self, place: str, count: int) -> None:
        """Report the number of artifacts that were published to a repository."""
        self._reporter.published(place, count)

    def run_started(self, name: str, url: str) -> None:
        """Report that a run has begun."""
        self._reporter.run_started(name, url)

    def action_changed(self, change: ActionChange) -> None:
        """Report that a child action waits, runs or has ended."""
        self._reporter.action_changed(change)

    def output(self, stream: int, data: bytes) -> int:
        """Pass on output of the task."""
        return self._reporter.output(stream, data)

    def output_descriptor(self, stream: int) -> int:
        """Return the descriptor that output of a stream is passed on to."""
        return self._reporter.output_descriptor(stream)


def pass_on(target: int, data: bytes) -> int:
    """Write to a descriptor without waiting for its reader, and return the number of bytes."""
    kind = os.fstat(target).st_mode
    has_reader = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(target)
    # A pipe that is ready takes at least this many bytes (POSIX, write()).
    piece = select.PIPE_BUF if has_reader else len(data)
    taken = 0
    while taken < len(data) and select.select([], [target], [], 0)[1]:
        try:
            taken += os.write(target, data[taken : taken + piece])
        except BrokenPipeError:
            return len(data)  # The reader is gone; the log has the output.
    return taken


def retry_text(attempt: int, total: int, result: Result, wait: float) -> str:
    """Return the sentence on an attempt that failed, or was lost, and will be repeated.

    `total` is the number of attempts that the task has, and `wait` is in seconds.
    """
    reason = result.error.message if result.error else result.phase
    again = f"trying again in {wait:g} s" if wait else "trying again"
    if result.phase == "aborted":
        return f"Attempt {attempt} was aborted ({reason}); {again}."
    if result.error is not None and result.error.kind == "lost":
        return f"Attempt {attempt} was lost ({reason}); {again}."
    return f"Attempt {attempt} of {total} failed ({reason}); {again}."
