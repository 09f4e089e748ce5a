"""`flyte get logs`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from flyte_build.ops.stores import Stores
from flyte_build.runner.action import ROOT
from flyte_build.runner.history.rows import iso

from .console import Console
from .options import actions, runs

if TYPE_CHECKING:
    from flyte_build.runner.history.log import Log

_STREAMS = {1: "stdout", 2: "stderr"}


@click.command("logs")
@click.option(
    "-l",
    "--lines",
    type=click.IntRange(0),
    help="Number of lines to show, from the end (default: all).",
)
@click.option("--show-ts", is_flag=True, help="Show the time before each line.")
@click.option("--attempt", type=click.IntRange(1), help="Only the output of this attempt.")
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the action has ended.")
@click.argument("run", metavar="RUN", shell_complete=runs)
@click.argument("action", metavar="[ACTION]", required=False, shell_complete=actions)
@click.pass_obj
def logs(console: Console, /, run: str, action: str | None, **options: Any) -> None:
    """Print the output of an action unchanged; with `-of json`, as an object for each line.

    ACTION is an action's name, or a beginning of it that no other action has (default: a0, the
    run's own task). With `--follow`, output of an action that has printed nothing yet is awaited.
    """
    from flyte_build.ops.abort import open_log

    history = Stores(console).history
    name = history.find_action(run, action or ROOT).name
    output = sys.stdout.buffer
    try:
        log = open_log(history, run, options["attempt"], options["follow"], name)
        if options["lines"] is not None:
            log.skip_to_last(options["lines"])
        for chunk in _rendered(log, name, console.json, options["show_ts"]):
            output.write(chunk)
            output.flush()
    except KeyboardInterrupt:  # The usual way to stop following.
        raise click.exceptions.Exit(130) from None


def _rendered(log: Log, action: str, as_json: bool, stamped: bool) -> Iterator[bytes]:
    """Yield the bytes of a log: unchanged, with times, or as lines of JSON."""
    if as_json:
        for line in log.lines():
            document = {
                "time": iso(line.time),
                "stream": _STREAMS.get(line.stream),
                "action": action,
                "line": line.data.decode(errors="replace"),
            }
            yield json.dumps(document, ensure_ascii=False).encode() + b"\n"
    elif stamped:
        for line in log.lines():
            yield b"%s %s\n" % (iso(line.time).encode(), line.data)
    else:
        yield from log.chunks()
