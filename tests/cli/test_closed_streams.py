"""Commands with closed standard streams work as usual, without their output."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.command import FLYTE, Shell

pytestmark = pytest.mark.slow

CLOSED = (">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-")
VERBS: dict[str, int] = {  # With their exit codes.
    "--help": 0,
    "--version": 0,
    "abort run nothing": 4,
    "build tasks.py": 0,
    "bundle ls tasks.py": 0,
    "cache gc": 0,
    "cache stats": 0,
    "cache verify": 0,
    "cache warm tasks.py": 0,
    "cache why tasks.py": 0,
    "config": 0,
    "delete local-cache": 0,
    "deploy --dry-run tasks.py": 0,
    "doctor": 0,
    "get config": 0,
    "get deployment": 0,
    "get image": 0,
    "get run": 0,
    "graph tasks.py": 0,
    "image inspect nothing": 4,
    "lock": 0,
    "nonsense": 2,
    "registry login host": 2,
    "rerun nothing": 4,
    "run --local tasks.py hello": 0,
    "run nope.py x": 2,
    "run tasks.py --help": 0,
    "run tasks.py fails": 1,
    "run tasks.py hello": 0,
    "-of json get run": 0,
    "-of json run tasks.py hello": 0,
}


def closed(flyte: Shell, command: str, streams: str) -> tuple[int, str]:
    """Run a command with closed streams; return its exit code and the output of the others."""
    line = f"exec {shlex.quote(FLYTE)} {command} {streams}"
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=flyte.project,
        env=flyte.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("command", VERBS)
def test_a_command_works_with_closed_streams(flyte: Shell, command: str) -> None:
    """The exit code is the usual one, and no traceback is printed."""
    for streams in CLOSED:
        code, output = closed(flyte, command, streams)
        assert (code, streams) == (VERBS[command], streams), output
        assert "flyte_build" not in output, "a traceback of ours"


@pytest.mark.parametrize("streams", CLOSED)
def test_a_run_with_closed_streams_is_like_any_other(flyte: Shell, streams: str) -> None:
    """The log and the result of a run are complete, and no file is taken for a closed stream."""
    assert closed(flyte, "run tasks.py prints --size 5000", streams)[0] == 0
    run = flyte.last_run()
    assert run["phase"] == "succeeded" and len(flyte("get", "logs", run["name"]).stdout) == 5000
    assert flyte.json("cache", "verify")["bad"] == []
    for path in (flyte.home / "data/v1/history.sqlite", flyte.home / "cache/v1/cache.sqlite"):
        assert Path(path).read_bytes().startswith(b"SQLite format 3")
