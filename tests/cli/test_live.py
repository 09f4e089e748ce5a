"""Calls of a run while it goes on: a view on a terminal, lines for failures elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest

from flyte_build.cli.live import LiveCalls
from flyte_build.runner.reporter import ActionChange
from tests.support.command import FLYTE, Shell
from tests.support.terminal import Terminal

LIVE = """
import asyncio, os, sys, time
import flyte

env = flyte.TaskEnvironment(name="live")

@env.task
async def waits(n: int, go: str) -> int:
    if n == 1:
        raise ValueError("no one\\nat all")
    while not os.path.exists(go):
        await asyncio.sleep(0.02)
    return n

@env.task
async def maps(go: str) -> int:
    return len([each async for each in flyte.map.aio(waits, range(5), [go] * 5)])

@env.task
async def begins_line(go: str) -> None:
    call = asyncio.ensure_future(waits.aio(0, go))
    await asyncio.sleep(1)
    print("part", end="", flush=True)
    await asyncio.sleep(1)
    print(" of a line")
    await call
"""
ASKS = """

@env.task
async def asks(go: str) -> int:
    call = asyncio.ensure_future(waits.aio(0, go))
    number = await flyte.new_condition("number", data_type=int).wait.aio()
    await call
    return 2 * number
"""
ERASED = r"\r\x1b\[2K(\x1b\[1A\x1b\[2K)*"


@pytest.fixture
def live(flyte: Shell) -> Shell:
    """A project with tasks that wait for a file."""
    (flyte.project / "live.py").write_text(LIVE)
    return flyte


def change(
    number: int,
    phase: Literal["queued", "running", "succeeded", "failed"],
    task: str = "t.leaf",
    parent: str = "a0",
) -> ActionChange:
    return ActionChange(f"a{number:015}", parent, task, "", phase)


def test_a_terminal_shows_groups_and_running_calls_until_they_have_ended(
    live: Shell, tmp_path: Path
) -> None:
    """Nothing of the view is left at the end, but the failures are."""
    go = tmp_path / "go"
    terminal = Terminal(live, FLYTE, "run", "--name", "one", "live.py", "maps", "--go", str(go))
    assert "[waits a" in terminal.expect("failed")
    reason = terminal.expect("\n")
    assert re.search(r"waits a\w{5}: ValueError: no one\r$", reason)
    terminal.expect("live.waits_map  [####................]  1 of 5 done, ")
    terminal.expect(" running, 1 failed")
    terminal.expect("  1 s")
    go.touch()
    rest = terminal.end()
    last = re.split(ERASED, rest)[-1]
    assert last == "5\r\n"
    assert live.json("get", "run", "one")["phase"] == "succeeded"


def test_no_line_of_a_task_is_broken_by_the_view(live: Shell, tmp_path: Path) -> None:
    """Nothing is drawn after output that does not end with a line break."""
    go = tmp_path / "go"
    terminal = Terminal(live, FLYTE, "run", "live.py", "begins_line", "--go", str(go))
    terminal.expect("waits a")
    terminal.expect("part")
    assert terminal.expect(" of a line") == ""
    terminal.expect("waits a")
    go.touch()
    terminal.end()


def test_nothing_is_drawn_where_the_user_types(live: Shell, tmp_path: Path) -> None:
    """While a condition waits for an answer at the terminal, the view stays away."""
    (live.project / "live.py").write_text(LIVE + ASKS)
    go = tmp_path / "go"
    terminal = Terminal(live, FLYTE, "run", "live.py", "asks", "--go", str(go))
    terminal.expect("VALUE`.\r\n")
    time.sleep(1.3)
    terminal.type("21")
    assert terminal.expect("21") == ""
    terminal.expect("waits a")
    go.touch()
    assert terminal.end().endswith("42\r\n")


def test_without_a_terminal_only_failures_are_printed(live: Shell, tmp_path: Path) -> None:
    """Each failure of a call is one plain line; with `--log-format json`, a warning."""
    go = tmp_path / "go"
    go.touch()
    errors = live("run", "live.py", "maps", "--go", str(go)).stderr.splitlines()
    after = errors[next(i for i, line in enumerate(errors) if line.startswith("run ")) + 1 :]
    own = [line for line in after if not line.startswith("[waits a")]
    assert len(own) == 1 and re.fullmatch(r"failed    waits a\w{5}: ValueError: no one", own[0])
    logged = live("--log-format", "json", "run", "live.py", "maps", "--go", str(go)).stderr
    assert re.search(r'"warning", "message": "failed waits a\w{5}: ValueError: no one"', logged)


def test_a_task_without_calls_does_not_load_the_view(live: Shell) -> None:
    (live.project / "leaf.py").write_text(
        "import flyte\nenv = flyte.TaskEnvironment(name='leaf')\n@env.task\ndef one() -> int:\n    return 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "importtime", FLYTE, "run", "leaf.py", "one"],
        cwd=live.project,
        env=live.environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "1\n" and "flyte_build.cli.console" in done.stderr
    assert not re.search(r"flyte_build\.cli\.(live|progress)|\brich\b|uvicorn", done.stderr)


@pytest.mark.quick
def test_a_thousand_calls_are_a_few_lines() -> None:
    """There are never more than ten lines, whatever is going on."""
    printed = list[str]()
    calls = LiveCalls(lambda word, text: printed.append(f"{word} {text}"), None)
    for number in range(1000):
        calls.change(change(number, "queued", f"t.task{number % 7}"))
    assert len(calls.lines()) == 5 and calls.lines()[0] == "... and 3 more groups"
    for number in range(0, 1000, 2):
        calls.change(change(number, "running", f"t.task{number % 7}"))
    assert len(calls.lines()) == 10 and calls.lines()[-1] == "  ... and 496 more run"
    for number in range(1000):
        calls.change(
            change(number, "failed" if number == 5 else "succeeded", f"t.task{number % 7}")
        )
    assert calls.lines() == [] and printed == ["failed task5 a00000: "]


@pytest.mark.quick
def test_calls_that_wait_for_calls_are_not_shown_themselves() -> None:
    """Of nested calls, the innermost are shown; one that is retried is one call."""
    calls = LiveCalls(lambda word, text: None, None)
    calls.change(change(1, "running", "t.outer"))
    assert calls.lines() == ["  outer a00000  0 s"]
    for phase in ("queued", "running", "queued", "running"):
        calls.change(change(2, phase, "t.inner", f"a{1:015}"))
    assert calls.lines() == ["  inner a00000  0 s"]
    calls.change(change(2, "succeeded", "t.inner", f"a{1:015}"))
    assert calls.lines() == ["  outer a00000  0 s"]
