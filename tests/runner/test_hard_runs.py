"""Runs that strain the command: each ends in a terminal phase, with a reason, in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.command import FLYTE, Shell

pytestmark = pytest.mark.slow

LARGE = 1_000_000_000 if os.environ.get("FLYTE_TEST_LARGE") else 300_000_000
# KiB that the command and its children may have at most, unless a task takes more itself.
BOUND = 100_000
TASKS = """
import asyncio, os, resource, shutil, subprocess, sys, threading, time
import flyte

env = flyte.TaskEnvironment(name="hard")

@env.task
def prints(size: int) -> int:
    block = (b"x" * 99 + b"\\n") * 10_000
    for _ in range(size // len(block)):
        os.write(1, block)
    return size

@env.task
def prints_one_line(size: int) -> None:
    for _ in range(size // 1_000_000):
        os.write(1, b"x" * 1_000_000)

@env.task
def prints_binary() -> None:
    block = bytes(range(256)) * 4096
    for _ in range(10):
        os.write(1, block)
        os.write(2, block)

@env.task(timeout=0.5)
def never_ends() -> None:
    while True:
        time.sleep(1)

@env.task(timeout=0.5)
def never_listens() -> None:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)

@env.task
def leaves_children() -> list[int]:
    return [subprocess.Popen(["sleep", "1000"], start_new_session=detached).pid for detached in (False, True)]

@env.task
def forks() -> list[int]:
    if (child := os.fork()) == 0:
        time.sleep(1000)
    return [child]

@env.task
def forked_returns() -> str:
    return "child" if os.fork() == 0 else "parent"

@env.task
def closes_output() -> int:
    sys.stdout.close()
    sys.stderr.close()
    os.close(1)
    os.close(2)
    return 1

@env.task
def closes_and_fails() -> None:
    os.close(1)
    os.close(2)
    raise ValueError("seen nowhere else")

@env.task
def leaves(code: int) -> None:
    os._exit(code)

@env.task
def exits(code: str) -> None:
    sys.exit(code)

@env.task
async def exits_async() -> None:
    await asyncio.sleep(0)
    sys.exit(3)

@env.task
def interrupts() -> None:
    raise KeyboardInterrupt

@env.task
def recurses() -> None:
    sys.setrecursionlimit(20_000)
    def down(): down()
    down()

class Deep(Exception):
    def __str__(self): return str(self)
    __repr__ = __str__

@env.task
def recurses_in_text() -> None:
    raise Deep()

class Broken(Exception):
    def __str__(self): raise RuntimeError("no text")
    def __repr__(self): raise RuntimeError("no text")
    def __reduce__(self): raise RuntimeError("no pickle")

@env.task
def fails_without_text() -> None:
    raise Broken("x")

class Exits(Exception):
    def __str__(self): sys.exit(0)

@env.task
def exits_in_text() -> None:
    raise Exits()

@env.task
def fails_with_much_text() -> None:
    raise ValueError("x" * 10_000_000)

@env.task
def fails_with_surrogates() -> None:
    raise ValueError("a\\udcffb\\x00c")

@env.task
def fails_in_a_long_chain() -> None:
    def fail(left):
        try:
            raise ValueError(left)
        except ValueError:
            if left:
                fail(left - 1)
            raise
    fail(200)

@env.task
def takes_too_much() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    held = [bytearray(1 << 26) for _ in range(100)]

@env.task
def is_killed() -> None:
    os.kill(os.getpid(), 9)

@env.task
def crashes() -> None:
    os.kill(os.getpid(), 11)

@env.task
def loses_its_folder() -> str:
    shutil.rmtree(os.getcwd())
    return "still here"

@env.task
def loses_its_run() -> str:
    shutil.rmtree(os.path.dirname(os.getcwd()))
    return "still here"

@env.task
def moves_the_store(place: str) -> str:
    os.environ["FLYTE_HOME"] = place
    os.environ["HOME"] = place
    return os.environ["FLYTE_HOME"]

@env.task
def leaves_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return 1
"""
MEASURED = """
import json, resource, subprocess, sys
with open(sys.argv[1], "wb") as output:
    done = subprocess.run(sys.argv[2:], stdout=output, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
print(json.dumps([done.returncode, peak, done.stderr[-50000:].decode(errors="replace")]))
"""


@dataclass
class Measured:
    """An ended command: exit code, peak memory of its largest process in KiB, errors and output."""

    exit_code: int
    peak: int
    errors: str
    output: Path


@pytest.fixture
def shell(flyte: Shell) -> Shell:
    """A project with the tasks of this file."""
    (flyte.project / "hard.py").write_text(TASKS)
    return flyte


def run(shell: Shell, task: str, *inputs: str) -> Measured:
    """Run a task from a process that measures it."""
    output = shell.home.parent / "output"
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(output), FLYTE, "run", "hard.py", task, *inputs],
        cwd=shell.project,
        env=shell.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    exit_code, peak, errors = json.loads(done.stdout)
    assert "flyte_build" not in errors, errors
    return Measured(exit_code, peak, errors, output)


def ended(shell: Shell) -> dict[str, Any]:
    """Return the last run, as the history has it."""
    found: dict[str, Any] = shell.json("get", "run", shell.last_run()["name"])
    assert found["ended"] is not None
    return found


@pytest.mark.parametrize(
    ("task", "bytes_more"), [("prints", len(f"{LARGE}\n")), ("prints_one_line", 0)]
)
def test_a_very_long_log_is_whole(shell: Shell, task: str, bytes_more: int) -> None:
    """A log of 300 MB (1 GB with FLYTE_TEST_LARGE), in lines and as one, is passed on and kept."""
    done = run(shell, task, "--size", str(LARGE))
    assert done.exit_code == 0 and done.peak < BOUND
    log = Path(ended(shell)["url"].removeprefix("file://")) / "log"
    assert log.stat().st_size == LARGE and done.output.stat().st_size == LARGE + bytes_more


def test_binary_output_is_kept_as_it_is(shell: Shell) -> None:
    """Binary output of both streams is kept as it is."""
    done = run(shell, "prints_binary")
    assert done.exit_code == 0 and done.peak < BOUND
    assert done.output.read_bytes() == bytes(range(256)) * 4096 * 10
    assert (
        Path(ended(shell)["url"].removeprefix("file://")) / "log"
    ).stat().st_size == 2 * 256 * 4096 * 10


@pytest.mark.parametrize(
    ("task", "inputs", "phase", "kind", "text"),
    [
        ("never_ends", [], "timed_out", "MaxRuntimeExceededError", "its timeout of 0.5 s"),
        ("never_listens", [], "timed_out", "MaxRuntimeExceededError", "its timeout of 0.5 s"),
        ("closes_and_fails", [], "failed", "ValueError", "seen nowhere else"),
        ("leaves", ["--code", "0"], "failed", "RuntimeUnknownError", "os._exit"),
        ("leaves", ["--code", "3"], "failed", "RuntimeUnknownError", "exit code 3"),
        ("exits", ["--code", "all is well"], "failed", "SystemExit", "sys.exit('all is well')"),
        ("exits_async", [], "failed", "SystemExit", "sys.exit(3)"),
        ("interrupts", [], "failed", "KeyboardInterrupt", ""),
        ("recurses", [], "failed", "RecursionError", "maximum recursion depth"),
        ("recurses_in_text", [], "failed", "Deep", "<exception str() failed: RecursionError>"),
        ("fails_without_text", [], "failed", "Broken", "<exception str() failed: RuntimeError>"),
        ("exits_in_text", [], "failed", "Exits", "<exception str() failed: SystemExit>"),
        ("fails_with_much_text", [], "failed", "ValueError", "xxx"),
        ("fails_with_surrogates", [], "failed", "ValueError", "a"),
        ("fails_in_a_long_chain", [], "failed", "ValueError", "0"),
        ("takes_too_much", [], "failed", "MemoryError", ""),
        (
            "is_killed",
            [],
            "failed",
            "OOMError",
            "most likely because the machine ran out of memory",
        ),
        ("crashes", [], "failed", "RuntimeUnknownError", "signal 11"),
        ("loses_its_run", [], "failed", "RuntimeUnknownError", "its result could not be written"),
    ],
)
def test_a_run_ends_with_its_reason(
    shell: Shell, task: str, inputs: list[str], phase: str, kind: str, text: str
) -> None:
    """The history, the command and its exit code give the reason of a run's end."""
    done = run(shell, task, *inputs)
    found = ended(shell)
    assert found["phase"] == phase and done.exit_code == {"failed": 1, "timed_out": 6}[phase], (
        done.errors
    )
    assert text in found["why"]
    assert (
        f"{phase.replace('_', ' ')}: hard.{task}: {kind}" in done.errors
        and len(done.errors) < 20_000
    )
    assert done.peak < BOUND or task in ("takes_too_much", "fails_with_much_text")


@pytest.mark.parametrize(
    ("task", "inputs", "output"),
    [
        ("forked_returns", [], "parent\n"),
        ("closes_output", [], "1\n"),
        ("loses_its_folder", [], "still here\n"),
        ("leaves_a_thread", [], "1\n"),
        ("moves_the_store", ["--place", "/no/such/place"], "/no/such/place\n"),
    ],
)
def test_a_run_succeeds_whatever_its_task_does_besides(
    shell: Shell, task: str, inputs: list[str], output: str
) -> None:
    """A forked child of the task does not affect its result, and the store stays in its place."""
    done = run(shell, task, *inputs)
    assert done.exit_code == 0 and done.peak < BOUND, done.errors
    assert done.output.read_text() == output
    assert ended(shell)["phase"] == "succeeded"


@pytest.mark.parametrize("task", ["leaves_children", "forks"])
def test_nothing_that_a_task_has_started_outlives_it(shell: Shell, task: str) -> None:
    """No process of a task outlives it, even if it has left the process group."""
    done = run(shell, task)
    assert done.exit_code == 0 and ended(shell)["phase"] == "succeeded"
    left = [
        psutil.Process(pid) for pid in json.loads(done.output.read_text()) if psutil.pid_exists(pid)
    ]
    assert psutil.wait_procs(left, timeout=10)[1] == []
