"""Recovering: a run again, of which only what did not succeed before is executed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Shell, wait_for_no_sleepers

TASKS = """
import asyncio, os
import flyte

env = flyte.TaskEnvironment(name="r")

@env.task
async def step(i: int, folder: str) -> int:
    with open(f"{folder}/calls", "a") as file:
        file.write(f"{i}\\n")
    if os.path.exists(f"{folder}/wait-{i}"):
        open(f"{folder}/waits-{i}", "w").close()
        await asyncio.sleep(600)
    if os.path.exists(f"{folder}/fail-{i}"):
        raise ValueError(f"no {i}")
    return i

@env.task
async def pair(i: int, folder: str) -> int:
    return await step(2 * i, folder) + await step(2 * i + 1, folder)

@env.task
async def main(n: int, folder: str) -> int:
    return sum(await asyncio.gather(*[pair(i, folder) for i in range(n)]))
"""


@pytest.fixture
def project(flyte: Shell) -> Shell:
    """A project with a tree of steps, each of which is recorded in a file when it is called."""
    (flyte.project / "steps.py").write_text(TASKS)
    return flyte


def calls(folder: Path) -> list[int]:
    """Return the steps that were called since the last time, in order of their numbers."""
    found = sorted(map(int, (folder / "calls").read_text().split()))
    (folder / "calls").write_text("")
    return found


def main(project: Shell, folder: Path, n: int, exit_code: int = 0) -> dict[str, Any]:
    """Run all steps."""
    found: dict[str, Any] = project.json(
        "run", "steps.py", "main", "--n", str(n), "--folder", str(folder), exit_code=exit_code
    )
    return found


def test_only_what_failed_runs_again(project: Shell, tmp_path: Path) -> None:
    """Actions that succeeded are taken over, at any depth; a recovered run can be recovered, too."""
    (tmp_path / "fail-3").touch()
    first = main(project, tmp_path, 3, exit_code=1)
    assert set(calls(tmp_path)) >= {2, 3}
    again = project.json("rerun", "--recover", first["run"], exit_code=1)
    called = calls(tmp_path)
    assert 3 in called and 2 not in called
    (tmp_path / "fail-3").unlink()
    done = project.json("rerun", "--recover", again["run"])
    assert done["outputs"] == {"o0": sum(range(6))} and 2 not in calls(tmp_path)
    actions = project.json("get", "action", done["run"])
    taken = {each["name"] for each in actions if each["recovered_from"] == again["run"]}
    assert taken and {each["phase"] for each in actions} == {"succeeded"}
    nothing = project("rerun", done["run"], "--recover")  # Flags may also stand there.
    assert nothing.stdout == "15\n" and calls(tmp_path) == []
    assert "had succeeded and did not run again" in nothing.stderr


def test_a_killed_run_is_recovered(project: Shell, tmp_path: Path) -> None:
    """After kill -9 of the command, the actions that had ended are not executed again."""
    for i in (5, 7):
        (tmp_path / f"wait-{i}").touch()
    command = project.start(
        "run", "--name", "one", "steps.py", "main", "--n", "4", "--folder", str(tmp_path)
    )
    while not (tmp_path / "waits-5").exists() or not (tmp_path / "waits-7").exists():
        assert command.poll() is None
        time.sleep(0.02)
    command.kill()
    command.communicate()
    assert calls(tmp_path) == list(range(8))
    for i in (5, 7):
        (tmp_path / f"wait-{i}").unlink()
    done = project.json("rerun", "--recover", "one")
    assert done["outputs"] == {"o0": sum(range(8))} and calls(tmp_path) == [5, 7]
    wait_for_no_sleepers()


def test_changed_code_is_refused(project: Shell, tmp_path: Path) -> None:
    """Results of other code are not mixed in, unless that is forced; the original code can be used."""
    (tmp_path / "fail-1").touch()
    first = main(project, tmp_path, 1, exit_code=1)
    (tmp_path / "fail-1").unlink()
    file = project.project / "steps.py"
    file.write_text(file.read_text().replace("return i\n", "return 10 * i\n"))
    refused = project("rerun", "--recover", first["run"], exit_code=2).stderr
    assert "The code has changed" in refused and "--as-then" in refused and "--force" in refused
    calls(tmp_path)
    assert project.json("rerun", "--recover", "--as-then", first["run"])["outputs"] == {"o0": 1}
    assert calls(tmp_path) == [1]
    assert project.json("rerun", "--recover", "--force", first["run"])["outputs"] == {"o0": 10}


def test_other_inputs_are_other_actions(project: Shell, tmp_path: Path) -> None:
    """Actions of which the inputs are the same are taken over, the new ones run."""
    first = main(project, tmp_path, 1)
    calls(tmp_path)
    done = project.json("rerun", "--recover", first["run"], "--n", "2")
    assert done["outputs"] == {"o0": 6} and calls(tmp_path) == [2, 3]
