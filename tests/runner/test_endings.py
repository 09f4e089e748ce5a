"""Runs of tasks and their ends: failures, signals, output, retries, and the origin of the code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command import FLYTE, TASKS, Shell, wait_for_no_sleepers

ENDLESS = """
import flyte
env = flyte.TaskEnvironment(name="t")
@env.task
def endless() -> None:
    print("started")
    while True:
        print("x" * 99)
"""


@pytest.mark.parametrize(
    ("task", "args", "exit_code", "kind", "text"),
    [
        ("fails", [], 1, "ValueError", "no [good]"),
        ("ends", ["--code", "0"], 1, "RuntimeUnknownError", "without a result"),
        ("ends", ["--code", "7"], 1, "RuntimeUnknownError", "exit code 7"),
        ("exits", [], 1, "SystemExit", "sys.exit(3)"),
        ("killed", [], 1, "OOMError", "memory"),
        ("recurses", [], 1, "RecursionError", "recursion"),
        ("returns_wrong", [], 1, "RuntimeDataValidationError", "int"),
        ("slow", [], 6, "MaxRuntimeExceededError", "0.3 s"),
        ("chatty", [], 6, "MaxRuntimeExceededError", "0.3 s"),
        ("silent", [], 6, "MaxRuntimeExceededError", "0.3 s"),
    ],
)
def test_a_task_that_does_not_succeed_says_why(
    flyte: Shell, task: str, args: list[str], exit_code: int, kind: str, text: str
) -> None:
    """A failed task has a terminal phase, a reason in the history, and an exit code."""
    result = flyte.json("run", "tasks.py", task, *args, exit_code=exit_code)
    assert result["error"]["type"] == kind and text in result["error"]["message"]
    assert (
        flyte.last_run()["phase"]
        == result["phase"]
        == ("timed_out" if exit_code == 6 else "failed")
    )
    assert text in flyte("run", "tasks.py", task, *args, exit_code=exit_code).stderr


WRITES = """
import flyte, os, pathlib
env = flyte.TaskEnvironment(name="t")
@env.task
def writes(text: str) -> None:
    pathlib.Path("../result.json").write_text(text)
    os._exit(0)
"""


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"phase": "done"}',
        '{"phase": "failed", "outputs": {}}',
        '{"phase": "succeeded", "outputs": 1}',
        '{"phase": "succeeded", "outputs": {}, "error": {"type": "x", "message": "y"}}',
        '{"phase": "aborted", "error": {"nothing": "known"}}',
    ],
)
def test_what_a_task_writes_in_place_of_its_result_is_none(flyte: Shell, text: str) -> None:
    """A malformed result that a task writes itself counts as none."""
    (flyte.project / "writes.py").write_text(WRITES)
    result = flyte.json("run", "writes.py", "writes", "--text", text, exit_code=1)
    assert result["phase"] == flyte.last_run()["phase"] == "failed"
    assert "without a result" in result["error"]["message"]


def test_a_traceback_shows_the_users_code_alone(flyte: Shell) -> None:
    """A traceback is shown once, with the project's paths, and is in the log.

    That of an async task is the same.
    """
    (flyte.project / "later.py").write_text(
        TASKS + "@env.task\nasync def fails_async() -> None:\n    raise ValueError\n"
    )
    done = flyte("run", "later.py", "fails_async", exit_code=1)
    assert 'File "later.py", line' in done.stderr and "During handling" not in done.stderr
    done = flyte("run", "tasks.py", "fails", exit_code=1)
    assert done.stderr.count('File "tasks.py", line') == 1 and "before" in done.stdout
    log = flyte("get", "logs", flyte.last_run()["name"]).stdout
    assert "before" in log and "ValueError: no [good]" in log


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 5), (signal.SIGHUP, 5), (signal.SIGKILL, -9)],
)
def test_a_signal_ends_the_task_and_its_children(flyte: Shell, number: int, exit_code: int) -> None:
    """A signal ends the task with its children, those outside of its group too, and the run."""
    command = flyte.start("run", "tasks.py", "for_ever")
    assert command.stdout and command.stdout.readline() == "started\n"
    command.send_signal(number)
    _, errors = command.communicate(timeout=30)
    assert command.returncode == exit_code and "flyte_build" not in errors
    wait_for_no_sleepers()
    assert flyte.last_run()["phase"] == ("failed" if number == signal.SIGKILL else "aborted")


_DEAF = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 5)])
@pytest.mark.parametrize(
    "args", [("tasks.py", "for_ever"), ("--local", "tasks.py", "patient")], ids=["worker", "local"]
)
def test_signals_that_the_parent_ignored_and_blocked_end_a_command(
    flyte: Shell, number: int, exit_code: int, args: tuple[str, ...]
) -> None:
    """Signals end a command even if its parent ignored or blocked them.

    A shell does so for background jobs.
    """
    deaf = Shell(flyte.project, flyte.home, program=(sys.executable, "-c", _DEAF, FLYTE))
    command = deaf.start("run", *args)
    assert command.stdout and command.stderr
    (command.stderr if "--local" in args else command.stdout).readline()
    command.send_signal(number)
    command.communicate(timeout=30)
    assert command.returncode == exit_code
    wait_for_no_sleepers()


def test_a_hang_up_that_is_ignored_ends_nothing(flyte: Shell) -> None:
    """An ignored SIGHUP ends nothing, as with nohup."""
    command = subprocess.Popen(
        ["sh", "-c", f"trap '' HUP; exec {FLYTE} run tasks.py stubborn"],
        cwd=flyte.project,
        env=flyte.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout and command.stdout.readline() == "started\n"
    command.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(0.5)
    flyte("abort", "run", flyte.last_run()["name"])
    command.communicate(timeout=30)
    assert flyte.last_run()["phase"] == "aborted"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "args", [("get", "logs", "--follow"), ("run", "--local", "tasks.py", "patient")]
)
def test_any_command_ends_in_order(
    flyte: Shell, args: tuple[str, ...], number: signal.Signals
) -> None:
    """A signal ends any command with its exit code and name, and without a traceback.

    That includes a task in the command's own process.
    """
    waiting = flyte.start("run", "tasks.py", "for_ever")
    assert waiting.stdout and waiting.stdout.readline() == "started\n"
    command = flyte.start(*args, *([flyte.last_run()["name"]] if args[0] == "get" else []))
    try:
        assert command.stdout and command.stderr
        (command.stdout if args[0] == "get" else command.stderr).readline()
        command.send_signal(number)
        _, errors = command.communicate(timeout=20)
        assert (
            command.returncode == 5
            and f"Stopped by {number.name}" in errors
            and "Traceback" not in errors
        )
    finally:
        command.kill()
        waiting.terminate()
        waiting.communicate(timeout=30)
    assert {each["phase"] for each in flyte.json("get", "run")} == {"aborted"}
    wait_for_no_sleepers()


def test_asking_twice_ends_a_task_that_does_not_listen(flyte: Shell) -> None:
    """A second Ctrl-C ends a stubborn task at once."""
    command = flyte.start("run", "tasks.py", "stubborn")
    assert command.stdout and command.stdout.readline() == "started\n"
    command.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(0.5)
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=30)
    assert command.returncode == 130 and flyte.last_run()["phase"] == "aborted"


def test_output_that_nobody_reads_holds_no_run_that_is_to_end(flyte: Shell) -> None:
    """Ctrl-C ends a run whose output is not read, and whose pipe is full.

    A paused terminal has that effect.
    """
    (flyte.project / "endless.py").write_text(ENDLESS)
    command = flyte.start("run", "endless.py", "endless")
    assert command.stdout and command.stdout.readline() == "started\n"
    log = Path(flyte.last_run()["url"].removeprefix("file://")) / "log"
    size = -1
    while size != (size := log.stat().st_size):  # Until it grows no more.
        time.sleep(0.5)
    command.send_signal(signal.SIGINT)
    assert command.wait(30) == 130 and flyte.last_run()["phase"] == "aborted"
    command.communicate()


def test_a_slow_reader_gets_all_of_the_output(flyte: Shell) -> None:
    """A slow reader gets all output, even if the task has ended before."""
    shell = f"{FLYTE} run tasks.py prints --size 1000000 | (sleep 1; wc -c)"
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=flyte.project,
        env=flyte.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == 1_000_000 + len("1000000\n")


def test_what_a_task_leaves_behind_is_ended(flyte: Shell) -> None:
    """A child that a task leaves behind is ended, and does not delay the command."""
    assert flyte.json("run", "tasks.py", "leaves_child")["outputs"] == {"o0": 1}
    wait_for_no_sleepers()


def test_a_task_may_close_its_output(flyte: Shell) -> None:
    """The result of a task that closes its output counts."""
    assert flyte.json("run", "tasks.py", "closes")["outputs"] == {"o0": 5}


def test_a_long_log_takes_bounded_memory_and_is_whole(flyte: Shell) -> None:
    """64 MB of output are passed on and stored, in bounded memory."""
    command = subprocess.run(
        [
            "/usr/bin/env",
            "bash",
            "-c",
            'ulimit -v 1500000; exec "$@" >/dev/null',
            "-",
            FLYTE,
            "run",
            "tasks.py",
            "prints",
            "--size",
            "64000000",
        ],
        cwd=flyte.project,
        env=flyte.environment,
        capture_output=True,
        check=False,
    )
    assert command.returncode == 0, command.stderr
    assert os.path.getsize(f"{flyte.last_run()['url'].removeprefix('file://')}/log") == 64_000_000


def test_binary_output_passes_through_as_it_is(flyte: Shell) -> None:
    """Binary output is passed on and logged byte for byte."""
    flyte("run", "tasks.py", "hello")
    expected = bytes(range(256)) + b"\x1b[31mred\x1b[0m"
    done = subprocess.run(
        [FLYTE, "run", "tasks.py", "binary"],
        cwd=flyte.project,
        env=flyte.environment,
        capture_output=True,
        check=True,
    )
    assert done.stdout == expected
    name = flyte.last_run()["name"]
    logs = subprocess.run(
        [FLYTE, "get", "logs", name],
        cwd=flyte.project,
        env=flyte.environment,
        capture_output=True,
        check=True,
    )
    assert logs.stdout == expected


def test_a_task_is_tried_again_as_often_as_it_says(flyte: Shell) -> None:
    """A task is retried as often as declared, and the history counts the attempts."""
    result = flyte.json("run", "tasks.py", "flaky", "--path", str(flyte.home / "count"))
    assert result["outputs"] == {"o0": 3}
    assert flyte.json("get", "run", result["run"])["actions"][0]["attempts"] == 3


def test_environment_variables_reach_the_task_and_no_file(flyte: Shell) -> None:
    """Variables of the command override those of the declaration, and no value is stored."""
    args = ["--names", "FROM_ENV", "--names", "BOTH", "--names", "MINE", "--names", "HERE"]
    result = flyte.json(
        "run",
        "-e",
        "BOTH=cli",
        "-e",
        "MINE=a=b",
        "tasks.py",
        "variables",
        *args,
        env={"HERE": "shell"},
    )
    assert result["outputs"] == {"o0": ["env", "cli", "a=b", "shell"]}
    flyte(
        "run", "-e", "MINE=geheim-" + "4711", "tasks.py", "hello", env={"TOKEN": "geheim-" + "4712"}
    )
    for path in flyte.home.rglob("*"):
        if path.is_file():
            assert b"geheim-471" not in path.read_bytes(), path


def test_a_task_runs_from_the_bundle_in_a_fresh_folder(flyte: Shell) -> None:
    """A task runs from the bundle, in a new directory of its run.

    The working tree is not used, and files that the task writes get neither into the project nor
    into the bundle.
    """
    first, second = (flyte.json("run", "tasks.py", "places") for _ in range(2))
    assert first["outputs"]["o0"]["cwd"] != second["outputs"]["o0"]["cwd"]
    assert first["outputs"]["o0"]["file"] == second["outputs"]["o0"]["file"]
    assert "/extractions/" in first["outputs"]["o0"]["file"]
    assert not (flyte.project / "out.txt").exists() and not (flyte.project / "__pycache__").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="permissions keep everyone but root out")
def test_a_task_that_changes_the_bundle_changes_no_later_run(flyte: Shell) -> None:
    """If a task changes the bundle, the next run extracts it again; the store is not affected."""
    assert flyte.json("run", "tasks.py", "vandal")["outputs"] == {"o0": "changed"}
    verified = flyte.json("cache", "verify")
    assert "tasks.py was changed" in verified["bad"][0]["what"] and verified["bad"][0]["repaired"]
    flyte("run", "tasks.py", "vandal")
    place = flyte.json("run", "tasks.py", "places")["outputs"]["o0"]["file"]
    assert Path(place).read_text() == TASKS


def test_what_is_missing_from_the_bundle_is_named_with_the_remedy(flyte: Shell) -> None:
    """Missing files and modules are named with a remedy, which works."""
    (flyte.project / "data.txt").write_text("data")
    (flyte.project / "lazy.py").write_text("VALUE = 'lazy'\n")
    assert (
        'include=["data.txt"]'
        in flyte("run", "tasks.py", "reads", "--path", "data.txt", exit_code=1).stderr
    )
    assert (
        'include=["lazy.py"]'
        in flyte("run", "tasks.py", "dynamic", "--name", "lazy", exit_code=1).stderr
    )
    assert (
        flyte("run", "--copy-style", "all", "tasks.py", "reads", "--path", "data.txt").stdout
        == "data\n"
    )
    text = TASKS.replace('name="t",', 'name="t", include=["data.txt", "lazy.py"],')
    (flyte.project / "tasks.py").write_text(text)
    assert flyte("run", "tasks.py", "reads", "--path", "data.txt").stdout == "data\n"
    assert flyte("run", "tasks.py", "dynamic", "--name", "lazy").stdout == "lazy\n"


def test_the_working_tree_is_never_imported_even_through_pythonpath(flyte: Shell) -> None:
    """A module that is not in the bundle is refused, even if Python could find it."""
    (flyte.project / "lazy.py").write_text("VALUE = 'lazy'\n")
    done = flyte(
        "run",
        "tasks.py",
        "dynamic",
        "--name",
        "lazy",
        exit_code=1,
        env={"PYTHONPATH": str(flyte.project)},
    )
    assert "not in the bundle" in done.stderr or "in the bundle" in done.stderr


def test_a_stale_pyc_is_never_run(flyte: Shell) -> None:
    """Bytecode of other code is never run, even if path, size and time are equal."""
    for value in ("one", "two"):
        (flyte.project / "tasks.py").write_text(
            TASKS.replace('"Hello, {name}!"', f'"{value}, {{name}}!"', 1)
        )
        os.utime(flyte.project / "tasks.py", (0, 0))
        assert flyte("run", "tasks.py", "hello").stdout == f"{value}, World!\n"


READS = """
import ctypes, importlib, importlib.resources, importlib.util, os, pathlib, runpy, sqlite3
import flyte
import pkg

env = flyte.TaskEnvironment(name="reads")

def wrapped() -> None:
    try:
        open("data.csv")
    except OSError as error:
        raise RuntimeError("no data") from error

WAYS = {
    "relative": lambda: open("data.csv"),
    "pathlib": lambda: pathlib.Path("data.csv").read_text(),
    "beside": lambda: (pathlib.Path(__file__).parent / "data.csv").read_text(),
    "folder": lambda: os.listdir("tables"),
    "library": lambda: ctypes.CDLL("./data.csv"),
    "foreign": lambda: (_ for _ in ()).throw(OSError("Failed to open local file 'data.csv'. Detail: none")),
    "wrapped": wrapped,
    "resource": lambda: importlib.resources.files("pkg").joinpath("inner.csv").read_text(),
    "module": lambda: importlib.import_module("plugin"),
    "submodule": lambda: importlib.import_module("pkg.plugin"),
    "script": lambda: runpy.run_path("plugin.py"),
    "elsewhere": lambda: open("/no/such/data.csv"),
    "nowhere": lambda: open("other.csv"),
    "secret": lambda: open(".env"),
}

@env.task
def read(way: str) -> None:
    WAYS[way]()
"""


@pytest.mark.parametrize(
    ("way", "missing"),
    [
        ("relative", "data.csv"),
        ("pathlib", "data.csv"),
        ("beside", "data.csv"),
        ("folder", "tables"),
        ("library", "data.csv"),
        ("foreign", "data.csv"),
        ("wrapped", "data.csv"),
        ("resource", "pkg/inner.csv"),
        ("module", "plugin.py"),
        ("submodule", "pkg"),
        ("script", "plugin.py"),
        ("elsewhere", ""),
        ("nowhere", ""),
        ("secret", ""),
    ],
)
def test_a_file_that_only_the_project_has_is_named_however_it_is_read(
    flyte: Shell, way: str, missing: str
) -> None:
    """The hint names a missing file as `include` wants it, however the task reads it.

    There is none for a file that the project lacks, or that must not be shared.
    """
    for name in (
        "data.csv",
        "tables/one.csv",
        "pkg/__init__.py",
        "pkg/inner.csv",
        "pkg/plugin.py",
        "plugin.py",
        ".env",
    ):
        (flyte.project / name).parent.mkdir(exist_ok=True)
        (flyte.project / name).write_text("")
    (flyte.project / "reads.py").write_text(READS)
    errors = flyte("run", "reads.py", "read", "--way", way, exit_code=1).stderr
    assert (
        f'include=["{missing}"]' in errors and "--copy-style all" in errors
        if missing
        else "include" not in errors
    )
