"""Parts of the output of `flyte get`: times, values, and lines that a terminal cuts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import click

from flyte_build.runner.history.rows import iso
from flyte_build.text.wording import plural
from flyte_build.values.type import Wires

from .console import Console

LIMIT = 100
"""Default maximum number of lines on a terminal."""
WIDTH = 80
"""Columns of lines that do not go to a terminal."""

in_utc = click.option(
    "--utc",
    is_flag=True,
    help="Show times in UTC (ISO 8601); the default unless standard output is a terminal.",
)


def shown_as(utc: bool) -> Callable[[float], str]:
    """Return the function that formats times: local on a terminal, otherwise UTC."""
    if utc or not sys.stdout.isatty():
        return iso
    from flyte_build.text.units import local_time

    return local_time


def print_values(console: Console, kind: str, values: Wires, more: str) -> None:
    """Print values by name, each after its `kind`; `more` is the command that shows them whole."""
    console.result({f"{kind} {name}": value for name, value in values.items()}, more, named=True)


def print_lines(console: Console, lines: Sequence[str], limit: int | None, more: str) -> None:
    """Print at most `limit` lines (default: 100 on a terminal, else all), cut to its width.

    If there are others, `more` is the command that shows them, without its option `--limit`.
    """
    columns = width()
    if limit is None:
        limit = LIMIT if columns else len(lines)
    for line in lines[:limit]:
        console.print(line[:columns])
    if (rest := len(lines) - limit) > 0:
        console.print(f"... and {plural(rest, 'more line')}: `{more} --limit {len(lines)}`")


def cut(text: str, columns: int) -> str:
    """Shorten a text to a number of columns, with an ellipsis at its end."""
    return text if len(text) <= columns else text[: max(0, columns - 3)] + "..."


def width() -> int | None:
    """Return the columns of the terminal that is standard output; None if it is not a terminal."""
    if not sys.stdout.isatty():
        return None
    return os.get_terminal_size(1).columns or WIDTH  # A new terminal may not know its width yet.
