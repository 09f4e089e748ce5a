"""Printing: progress and notes on standard error, results on standard output."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from flyte_build.runner.reporter import ActionChange, Forwarder, RunReporter
from flyte_build.settings import table
from flyte_build.settings.configuration import Configuration

if TYPE_CHECKING:
    from flyte_build.graph.node import Node, Outcome
    from flyte_build.runner.worker.spawn import Worker
    from flyte_build.values.type import Wire, Wires

    from .live import LiveCalls
    from .progress import Progress

Format = Literal["table", "table-simple", "json", "json-raw"]
LogFormat = Literal["console", "json"]
COLUMN = 9
"""Width in characters of the word that a line begins with, such as `published`."""
_SHOWN = 4000  # Maximum characters of a value on a terminal.


class Appearance(NamedTuple):
    """Output options of a command; `verbose` counts the `-v` options."""

    format: Format
    log_format: LogFormat = "console"
    verbose: int = 0
    progress: bool = True
    color: bool = True


class Console(RunReporter):
    """Reporter that prints human-readable output, or one JSON document.

    With JSON, everything else goes to standard error. `spare` is a worker that was started early;
    `config` is the configuration file to read instead of all others, if any.
    """

    def __init__(
        self,
        appearance: Appearance,
        spare: Worker | None = None,
        config: str | None = None,
        org: str | None = None,
    ) -> None:
        format, self._verbose = appearance.format, appearance.verbose
        self.json = format in ("json", "json-raw")
        self.config, self._org, self.spare = config, org, spare
        self._raw, self._plain = format == "json-raw", format == "table-simple"
        self._log_json = appearance.log_format == "json"
        terminal = sys.stderr.isatty() and not self._log_json
        self._color = terminal and appearance.color and not os.environ.get("NO_COLOR")
        live = terminal and appearance.progress and os.environ.get("TERM") != "dumb"
        self._progress = _progress() if live else None
        self._cached: list[str] = []
        self._calls: LiveCalls | None = None
        if org is not None:
            self.note("--org is accepted, but has no effect yet: task.org.")

    def take_spare(self) -> Worker | None:
        """Return the worker that was started early, if any; the caller must use or dismiss it."""
        spare, self.spare = self.spare, None
        return spare

    def configuration(self, root: str) -> Configuration:
        """Return the configuration of the project at `root`.

        It is read from the file given on the command line, else from all files that are found.
        """
        return Configuration.load(root, self.note, self.config).override({table.ORG: self._org})

    def style(self, text: str, **style: Any) -> str:
        """Return `text` in a style, if colours are enabled."""
        return click.style(text, **style) if self._color else text

    def line(self, text: str, level: Level = "info") -> None:
        """Print a line on standard error, after everything that was printed before."""
        if self._progress:
            self._progress.make_room()
        sys.stdout.flush()
        print(as_json(level, text) if self._log_json else text, file=sys.stderr, flush=True)

    def note(self, sentence: str) -> None:
        """Print a sentence that the user should know."""
        self.line(
            sentence if self._log_json else f"{self.style('note:', fg='yellow')} {sentence}",
            "warning",
        )

    def node_started(self, node: Node, why: str) -> None:
        """Show progress for a node that is about to be made."""
        if self._progress and node.kind not in ("pack", "layer"):
            self._progress.begin(f"preparing {_named(node)}", f" ({why})")

    def files_read(self, done: int, total: int) -> None:
        """Show progress: the number of files read, of a total."""
        if self._progress:
            self._progress.advance("reading files", f"{done:,} of {total:,} files")

    def bytes_moved(self, done: int, total: int) -> None:
        """Show progress: the number of bytes sent or received, of a total."""
        if self._progress:
            from flyte_build.text.units import rounded_size

            self._progress.advance("transferring", f"{rounded_size(done)} of {rounded_size(total)}")

    def published(self, place: str, count: int) -> None:
        """Print the number of artifacts that were published to a repository."""
        self._event("published", "cyan", f"{count} to {place}")

    def node_resolved(self, outcome: Outcome) -> None:
        """Print a line for a node; cached ones only with `-v`, else `run_started` sums them up."""
        node = outcome.node
        if self._progress:
            self._progress.finish(f"preparing {_named(node)}")
        if outcome.state == "cached" and not outcome.fetched:
            self._cached.append(node.kind)
            if self._verbose:
                self._event("cached", "green", f"{node.kind:10} {node.name}  {outcome.key}")
            return
        seconds = _seconds(outcome.seconds)
        if outcome.state == "cached":
            self._event("fetched", "cyan", f"{_named(node)} from {outcome.place}{seconds}")
            return
        made = sum(child.state == "made" for child in outcome.children)
        extra = (
            f", {made} of {len(outcome.children)} {outcome.children[0].node.kind}s"
            if outcome.children
            else ""
        )
        word = "planned" if outcome.state == "missing" else "made"
        self._event(word, "cyan", f"{_named(node)} ({outcome.why}{extra}){seconds}")

    def step_output(self, line: str) -> None:
        """Print a line of a build step's output, unless it is blank."""
        if line.strip():
            self.line(self.style(f"  | {line}", dim=True))

    def run_started(self, name: str, url: str) -> None:
        """Print the run's name and URL, after the kinds of nodes that were cached."""
        if self._cached and not self._verbose:
            self._event("cached", "green", ", ".join(dict.fromkeys(self._cached)))
        self._event("run", None, f"{name}  {url}")

    def action_changed(self, change: ActionChange) -> None:
        """Print a line for a child that failed; on a terminal, show progress of all of them."""
        if self._calls is None:
            from .live import LiveCalls

            self._calls = LiveCalls(
                lambda word, text: self.line(self.event(word, "red", text), "warning"),
                self._progress,
            )
        self._calls.change(change)

    def output(self, stream: int, data: bytes) -> int:
        """Pass on the task's output, unchanged."""
        if self._progress is None:
            return super().output(stream, data)
        with self._progress.passing_on():
            taken = super().output(stream, data)
        is_there = os.isatty(self.output_descriptor(stream))
        self._progress.printed(data[:taken] if is_there else b"")
        return taken

    def output_descriptor(self, stream: int) -> int:
        """Return the descriptor of standard error if the output is JSON, else the task's own."""
        return 2 if self.json else stream

    def document(self, value: Any) -> None:
        """Print the one JSON document."""
        self.end_progress()
        print(
            json.dumps(value, indent=None if self._raw else 2, ensure_ascii=True, allow_nan=False),
            flush=True,
        )

    @contextmanager
    def only_document(self) -> Iterator[None]:
        """Redirect standard output to standard error in the body, if the output is JSON.

        Standard output then holds nothing but the document.
        """
        if not self.json:
            yield
            return
        sys.stdout.flush()
        own = os.dup(1)
        os.dup2(2, 1)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(own, 1)
            os.close(own)

    def result(self, outputs: Wires, more: str, named: bool = False) -> None:
        """Print a run's outputs: a single one without its name (unless `named`).

        On a terminal, long values are cut; `more` is the command that shows them in full.
        """
        self.end_progress()
        for name, value in outputs.items():
            text = _text_of(value)
            if sys.stdout.isatty() and len(text) > _SHOWN:
                text = f"{text[:_SHOWN]}...\n({len(text):,} characters; `{more}` shows all of it)"
            data = (text if len(outputs) == 1 and not named else f"{name}: {text}").encode(
                "utf-8", "backslashreplace"
            )
            sys.stdout.flush()
            sys.stdout.buffer.write(data + b"\n")
            sys.stdout.buffer.flush()

    def table(self, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        """Print a table on standard output, tab-separated unless it is a terminal."""
        from flyte_build.text.wording import printable

        self.end_progress()
        if self._plain or not sys.stdout.isatty():
            for row in rows:
                print("\t".join(map(printable, row)))
            return
        from rich.console import Console as Rich
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=None, pad_edge=False)
        for column in columns:
            grid.add_column(column, overflow="fold")
        for row in rows:
            grid.add_row(*(Text(printable(cell)) for cell in row))
        Rich(no_color=not self._color).print(grid)

    def print(self, text: str) -> None:
        """Print lines on standard output."""
        self.end_progress()
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def event(self, word: str, color: str | None, text: str) -> str:
        """Return a line that begins with a word, such as `made`, in a column of its own."""
        style: dict[str, Any] = {"fg": color} if color else {"bold": True}
        return f"{self.style(f'{word:{COLUMN}}', **style)} {text}"

    def _event(self, word: str, color: str | None, text: str) -> None:
        self.line(self.event(word, color, text))

    def end_progress(self) -> None:
        """Erase the progress line, so that other output can be printed."""
        if self._progress:
            self._progress.end()


def _text_of(wire: Wire) -> str:
    """Return an output as text: a string unchanged, else JSON, without the bytes of pickles."""
    text = wire if isinstance(wire, str) else json.dumps(wire, ensure_ascii=False)
    if isinstance(wire, str) or '"$pickle"' not in text:
        return text
    from flyte_build.values.pickles import readable

    plain = readable(wire)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _progress() -> Progress:
    from .progress import Progress

    return Progress()


def _named(node: Node) -> str:
    """Return the name of a node in messages: its kind, with the name if it is an image."""
    return f"image {node.name}" if node.kind == "image" else node.kind


def _seconds(seconds: float) -> str:
    return f"  {seconds:.2f} s" if seconds >= 0.005 else ""


class Quiet(Forwarder):
    """Reporter that forwards everything but resolved nodes."""

    def node_resolved(self, outcome: Outcome) -> None:
        """Print nothing: the command prints all nodes itself."""


def node_json(outcome: Outcome) -> dict[str, Any]:
    """Return a resolved node as a JSON value."""
    return {
        "kind": outcome.node.kind,
        "name": outcome.node.name,
        "state": outcome.state,
        "from": {"cached": outcome.place, "made": "made"}.get(outcome.state),
        "digest": outcome.artifact,
        "key": outcome.key,
        "why": outcome.why,
        "seconds": round(outcome.seconds, 6),
    }


Level = Literal["info", "warning", "error"]


def as_json(level: Level, message: str, **more: Any) -> str:
    """Return a log line: `time` (UTC, ISO 8601), `level`, `message`, and non-empty `more`.

    Runs of spaces in a message of one line are collapsed.
    """
    text = message if "\n" in message else " ".join(message.split())
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps(
        {
            "time": now,
            "level": level,
            "message": text,
            **{name: value for name, value in more.items() if value != ""},
        }
    )
