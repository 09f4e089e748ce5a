"""Protocol of progress reports during preparation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .node import Node, Outcome


class Reporter:
    """Receiver of progress reports; this one prints notes and ignores everything else."""

    def note(self, sentence: str) -> None:
        """Report a sentence that the user should know."""
        print(f"note: {sentence}", file=sys.stderr)

    def node_started(self, node: Node, why: str) -> None:
        """Report that a node is about to be built."""

    def node_resolved(self, outcome: Outcome) -> None:
        """Report that a node was found or built."""

    def files_read(self, done: int, total: int) -> None:
        """Report how many of `total` files have been read."""

    def bytes_moved(self, done: int, total: int) -> None:
        """Report how many of `total` bytes have been sent or received."""

    def step_output(self, line: str) -> None:
        """Report a line that a build step has printed."""

    def published(self, place: str, count: int) -> None:
        """Report how many records were published to a repository."""
