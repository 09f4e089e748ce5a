"""Files of a running task are never removed, replaced or changed by commands beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import Shell
from tests.support.files import as_root, clock_moves

TASKS = """
import os, time
import flyte

env = flyte.TaskEnvironment(name="t")

@env.task
def waits(started: str, go_on: str) -> str:
    open(started, "w").close()
    while not os.path.exists(go_on):
        time.sleep(0.02)
    import later
    return later.VALUE + open(os.path.join(os.path.dirname(__file__), "data.txt")).read()

@env.task
def reads() -> str:
    return open(os.path.join(os.path.dirname(__file__), "data.txt")).read()
"""


@pytest.fixture
def machine(flyte: Shell) -> Shell:
    """A machine whose tasks read and import when they are told to."""
    (flyte.project / "tasks.py").write_text(TASKS)
    (flyte.project / "later.py").write_text("VALUE = 'right '\n")
    (flyte.project / "data.txt").write_text("data")
    (flyte.project / "flyte.toml").write_text('run.copy_style = "all"\n')
    return flyte


@contextmanager
def running(machine: Shell, folder: Path) -> Iterator[None]:
    """Run a task during the body, and check that it then reads and imports the right code."""
    started, go_on = folder / "started", folder / "go on"
    with machine.start(
        "run", "tasks.py", "waits", "--started", str(started), "--go-on", str(go_on)
    ) as process:
        while not started.exists() and process.poll() is None:
            time.sleep(0.02)
        yield
        go_on.touch()
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "right data\n"), errors


def extractions(machine: Shell) -> list[Path]:
    """Return the extractions of a machine."""
    return sorted((machine.home / "cache" / "v1" / "extractions").iterdir())


def test_verify_beside_a_running_task_whose_bundle_is_gone(machine: Shell, tmp_path: Path) -> None:
    """`verify` does not report a leased extraction whose bundle is gone; it goes after the task."""
    with running(machine, tmp_path):
        machine("cache", "gc", "--keep", "0s")
        assert machine.json("cache", "verify")["bad"] == [] and len(extractions(machine)) == 1
        machine("cache", "gc", "--keep", "0s", "--max-size", "1")
    assert len(machine.json("cache", "verify")["bad"]) == 1 and extractions(machine) == []


@as_root
def test_a_run_beside_a_task_whose_code_was_changed(machine: Shell, tmp_path: Path) -> None:
    """Changed code stays as it is for its running task, and another run gets its own copy.

    `flyte cache gc` removes the changed code later.
    """
    with running(machine, tmp_path):
        (used,) = extractions(machine)
        clock_moves(used)
        (used / "code" / "added.txt").write_text("somebody's")
        assert machine("run", "tasks.py", "reads").stdout == "data\n"
        assert (used / "code" / "added.txt").exists() and len(extractions(machine)) == 2
        assert "added.txt was added" in machine.json("cache", "verify")["bad"][0]["what"]
        machine("cache", "gc", "--keep", "0s")
        assert (used / "code" / "added.txt").exists()
    machine("cache", "gc", "--keep", "0s")
    assert extractions(machine) == []
    assert machine("run", "tasks.py", "reads").stdout == "data\n"


@as_root
def test_verify_beside_a_task_whose_large_tree_was_changed(machine: Shell, tmp_path: Path) -> None:
    """A change that only `verify` sees is not used by the next run, nor taken from the task."""
    for number in range(2_100):
        (machine.project / f"f{number}.txt").write_text(str(number))
    with running(machine, tmp_path):
        (used,) = extractions(machine)
        (used / "code" / "f7.txt").chmod(0o644)
        (used / "code" / "f7.txt").write_text("changed")
        assert "f7.txt was changed" in machine.json("cache", "verify")["bad"][0]["what"]
        assert (
            machine("run", "tasks.py", "reads").stdout == "data\n"
            and len(extractions(machine)) == 2
        )


def test_collections_at_once(machine: Shell, tmp_path: Path) -> None:
    """Concurrent collections all succeed, and what is needed afterwards is rebuilt."""
    for number in range(5):
        (machine.project / "data.txt").write_text(f"data {number}")
        machine("run", "tasks.py", "reads")
    started = [machine.start("cache", "gc", "--keep", "0s") for _ in range(6)]
    for each in started:
        out, errors = each.communicate(timeout=100)
        assert each.returncode == 0 and "kept" in out, errors
    assert extractions(machine) == []
    assert machine("run", "tasks.py", "reads").stdout == "data 4\n"
