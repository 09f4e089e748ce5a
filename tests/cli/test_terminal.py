"""Runs on a terminal: immediate output, debuggers, and Python typed in line by line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flyte_build.text.units import rounded_size
from tests.support.command import FLYTE, Shell
from tests.support.shop import shop as shop
from tests.support.terminal import Terminal

TASKS = """
import os, subprocess, sys, time
import flyte

env = flyte.TaskEnvironment(name="t")

@env.task
def shows() -> None:
    print("terminals", os.isatty(0), os.isatty(1), os.isatty(2), os.get_terminal_size(1 if os.isatty(1) else 2).columns)
    for number in range(50):
        os.write(1, b"o%d\\n" % number)
        os.write(2, b"e%d\\n" % number)
    os.write(1, b"100%\\r\\x1b[31mred\\x1b[0m\\n")

@env.task
def waits(path: str) -> None:
    sys.stdout.write("working ...")
    while not os.path.exists(path):
        time.sleep(0.01)

@env.task
def long(size: int) -> None:
    for at in range(0, size, 1000):
        os.write(1, b"x" * 999 + b"\\n")

@env.task
def resized(path: str, columns: int) -> None:
    print("started", flush=True)
    while os.get_terminal_size(1).columns != columns:
        time.sleep(0.01)

@env.task
def asks() -> str:
    number = 41
    breakpoint()
    return f"{input('Who? ')} {number}"
"""


@pytest.fixture
def shell(flyte: Shell) -> Shell:
    """A project with the tasks of this file."""
    (flyte.project / "tasks.py").write_text(TASKS)
    return flyte


def log_of(flyte: Shell) -> bytes:
    return (Path(flyte.last_run()["url"].removeprefix("file://")) / "log").read_bytes()


def test_a_task_sees_a_terminal_where_the_command_has_one(shell: Shell) -> None:
    """A task sees a terminal of the same width, and its streams are in the order of writing.

    The log has the original bytes.
    """
    shown = Terminal(shell, FLYTE, "run", "tasks.py", "shows").end()
    assert "terminals False True True 123" in shown
    expected = [f"{stream}{number}" for number in range(50) for stream in "oe"]
    assert re.findall(r"^([oe]\d+)\r$", shown, re.M) == expected
    assert "100%\r\x1b[31mred\x1b[0m\r\n" in shown
    lines = log_of(shell).splitlines()
    assert [line.decode() for line in lines[1:101]] == expected and log_of(shell).endswith(
        b"100%\r\x1b[31mred\x1b[0m\n"
    )
    assert b"\r\n" not in log_of(shell)


def test_a_stream_that_is_redirected_is_no_terminal_for_the_task(shell: Shell) -> None:
    """A redirected stream is not a terminal for the task, while the other one still is."""
    for redirected, sees in (
        ("stdout", "False False True 123"),
        ("stderr", "False True False 123"),
    ):
        with open(shell.home.parent / redirected, "wb") as file:
            shown = Terminal(
                shell, FLYTE, "run", "tasks.py", "shows", **{redirected: file.fileno()}
            ).end()
        text = (shell.home.parent / redirected).read_text()
        assert f"terminals {sees}" in shown + text
        assert (
            re.findall(r"^([oe])\d+$", text, re.M) == ["o" if redirected == "stdout" else "e"] * 50
        )
        assert (
            re.findall(r"^([oe])\d+\r$", shown, re.M)
            == ["e" if redirected == "stdout" else "o"] * 50
        )
    (shell.project / "none.py").write_text(
        TASKS.replace("os.get_terminal_size(1 if os.isatty(1) else 2).columns", "0")
    )
    assert "terminals False False False 0" in shell("run", "none.py", "shows").stdout


def test_output_comes_at_once_and_whole(shell: Shell) -> None:
    """Output appears at once, even a part of a line; large output is complete at the end.

    The task ends before all of it is read.
    """
    go = shell.home.parent / "go"
    terminal = Terminal(shell, FLYTE, "run", "tasks.py", "waits", "--path", str(go))
    terminal.expect("working ...")
    go.touch()
    terminal.end()
    assert (
        Terminal(shell, FLYTE, "run", "tasks.py", "long", "--size", "2000000")
        .end()
        .count("x" * 999 + "\r\n")
        == 2000
    )
    assert len(log_of(shell)) == 2_000_000


def test_a_task_sees_that_the_terminal_changes(shell: Shell) -> None:
    """A task sees a change of the terminal's size."""
    terminal = Terminal(shell, FLYTE, "run", "tasks.py", "resized", "--path", "", "--columns", "77")
    terminal.expect("started")
    terminal.resize(77)
    terminal.end()


def test_a_debugger_works_in_a_local_run(shell: Shell) -> None:
    """`breakpoint()` and `input()` work in a local run, on the command's own terminal."""
    terminal = Terminal(shell, FLYTE, "run", "--local", "tasks.py", "asks")
    terminal.expect("(Pdb) ")
    terminal.type("number += 1")
    terminal.expect("(Pdb) ")
    terminal.type("continue")
    terminal.expect("Who? ")
    terminal.type("Ada")
    assert "Ada 42" in terminal.end()


TYPED = [
    "import flyte",
    "env = flyte.TaskEnvironment(name='typed')",
    "@env.task",
    "def double(n: int) -> int:",
    "    return n * 2",
    "",
    "print('Result:', flyte.run(double, 21))",
    "flyte.with_runcontext(mode='remote').run(double, 1)",
]


def test_tasks_that_were_typed_in_run_in_this_process(shell: Shell) -> None:
    """Tasks typed at the prompt run in this process; preparing one is an error with a hint."""
    terminal = Terminal(shell, sys.executable, "-i", "-q")
    for line in TYPED:
        terminal.type(line)
    terminal.expect("Result: 42")
    assert "The task typed.double is not defined in a Python file" in terminal.expect(
        'mode="local"'
    )
    terminal.type("exit()")
    terminal.end()


@pytest.mark.parametrize("arguments", [["-"], ["-c", "\n".join(TYPED)]], ids=["stdin", "command"])
def test_tasks_in_no_file_run_in_this_process(shell: Shell, arguments: list[str]) -> None:
    """Tasks from standard input or `-c` run in this process, and are in the history.

    They cannot be run again.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        input="\n".join(TYPED),
        cwd=shell.project,
        env=shell.environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "Result: 42\n"
    assert (
        "UsageError: The task typed.double is not defined in a Python file\n" in done.stderr
        and 'mode="local"' in done.stderr
    )
    assert shell.last_run()["task"] == "typed.double" and shell.last_run()["phase"] == "succeeded"
    assert (
        "is not defined in a Python file"
        in shell("rerun", shell.last_run()["name"], exit_code=4).stderr
    )


def test_a_script_without_the_ending_of_python_runs_in_this_process(shell: Shell) -> None:
    """A script without the suffix `.py`, such as one with `#!`, runs in this process."""
    (shell.project / "script").write_text("\n".join(TYPED[:-1]))
    done = subprocess.run(
        [sys.executable, "script"],
        cwd=shell.project,
        env=shell.environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "Result: 42\n", done.stderr


SLOW = """
import os, time, flyte
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.01)
env = flyte.TaskEnvironment(name="slow")

@env.task
def one() -> int:
    return 1
"""


def test_progress_shows_its_seconds_and_goes_away(flyte: Shell) -> None:
    """Progress of a slow import shows seconds, and is replaced by lasting lines."""
    (flyte.project / "slow.py").write_text(SLOW)
    flyte.variables["GO"] = str(flyte.project / "go")
    terminal = Terminal(flyte, FLYTE, "run", "slow.py", "one")
    try:
        terminal.expect("preparing discovery (first time), ")  # Seconds follow.
    finally:
        (flyte.project / "go").touch()
    assert terminal.expect("\x1b[36mmade     \x1b[0m discovery").endswith("\r\x1b[2K")
    terminal.expect("run      ")
    terminal.end()


def test_progress_shows_the_bytes_of_packages(shop: Shell) -> None:
    """Progress of a local environment shows the bytes of its packages that were fetched."""
    shop("lock")
    sizes = {}
    for wheel in (shop.project / "wheels").iterdir():
        sizes[wheel] = wheel.read_bytes()
        wheel.unlink()
        os.mkfifo(wheel)
    terminal = Terminal(shop, FLYTE, "run", "tasks.py", "versions")
    terminal.expect("made     \x1b[0m tree (first time)")
    for wheel, data in sizes.items():
        if "2.0" in wheel.name:  # The newest versions were locked.
            wheel.write_bytes(data)
    total = rounded_size(sum(len(data) for wheel, data in sizes.items() if "2.0" in wheel.name))
    terminal.expect(f"preparing environment (first time), {total} of {total}")
    terminal.expect("run      ")
    terminal.end()


def test_an_interruption_ends_the_line_of_progress_first(flyte: Shell) -> None:
    (flyte.project / "slow.py").write_text(SLOW)
    flyte.variables["GO"] = str(flyte.project / "go")
    terminal = Terminal(flyte, FLYTE, "run", "slow.py", "one")
    terminal.expect("preparing discovery (first time)")
    terminal.process.send_signal(signal.SIGINT)
    assert "\x1b[2K" in terminal.expect("Interrupted").rpartition("preparing")[2]
    terminal.end(130)


def test_deleting_all_versions_asks(flyte: Shell) -> None:
    """Deleting all versions asks on a terminal, and must be confirmed by an option elsewhere.

    One version is deleted without a question.
    """
    for version in ("v1", "v2", "v3"):
        flyte("deploy", "--version", version, "tasks.py")
    error = flyte("delete", "deployment", "t", exit_code=2).stderr
    assert "Cannot ask whether to delete all 3 versions of t" in error and "-y" in error
    for answer, left in (("n", 3), ("y", 0)):
        terminal = Terminal(flyte, FLYTE, "delete", "deployment", "t")
        terminal.expect("Delete all 3 versions of t? [y/N]: ")
        terminal.type(answer)
        terminal.end(130 if left else 0)
        assert len(flyte.json("get", "deployment")) == left
