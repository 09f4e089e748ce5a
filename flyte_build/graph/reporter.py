"""Who is told what happens while something is prepared."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .node import Node, Outcome


class Reporter:
    """Is told what happens; this one passes on what the user should know, and keeps the rest to
    itself.
    """

    def note(self, sentence: str) -> None:
        """Something that the user should know."""
        print(f"note: {sentence}", file=sys.stderr)

    def node_started(self, node: Node, why: str) -> None:
        """A node is about to be made."""

    def node_resolved(self, outcome: Outcome) -> None:
        """A node was found or made."""

    def files_read(self, done: int, total: int) -> None:
        """So many of so many files were read."""

    def bytes_moved(self, done: int, total: int) -> None:
        """So many of so many bytes were sent or received."""

    def step_output(self, line: str) -> None:
        """A build step has printed a line."""

    def published(self, place: str, count: int) -> None:
        """So many things were published to a repository."""
