"""Runs with many actions, many runs at once, and a disk that fills up meanwhile."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Shell, wait_for_no_sleepers
from tests.support.files import mounted

TASKS = """
import asyncio, os, time
import flyte

env = flyte.TaskEnvironment(name="many")

@env.task
async def step(i: int, folder: str) -> int:
    with open(f"{folder}/calls", "a") as file:
        file.write(f"{i}\\n")
    if i >= 700 and not os.path.exists(f"{folder}/go"):
        await asyncio.sleep(600)
    return i

@env.task
def steps(n: int, folder: str) -> int:
    return sum(flyte.map(bound(folder), range(n)))

def bound(folder):
    import functools
    return functools.partial(step, folder=folder)

@env.task
async def large(i: int, size: int) -> str:
    return "x" * size + str(i)

@env.task
async def larges(n: int, size: int) -> int:
    return sum([len(await large(i, size)) for i in range(n)])

@env.task
def small(i: int) -> int:
    return i

@env.task
def adds(n: int) -> int:
    return sum(flyte.map(small, range(n)))

in_flight = most = 0

@env.task
async def counted(i: int) -> int:
    global in_flight, most
    in_flight += 1
    most = max(most, in_flight)
    await asyncio.sleep(0)
    in_flight -= 1
    return i

@env.task
async def window(n: int) -> list[int]:
    drawn = most_drawn = done = 0
    def numbers():
        nonlocal drawn
        for drawn in range(1, n + 1):
            yield drawn
    async for _ in flyte.map.aio(counted, numbers()):
        done += 1
        most_drawn = max(most_drawn, drawn - done)
    return [done, most, most_drawn]
"""


@pytest.fixture
def project(flyte: Shell) -> Shell:
    """A project whose tasks have many children."""
    (flyte.project / "many.py").write_text(TASKS)
    return flyte


def phases(project: Shell, run: str) -> dict[str, int]:
    """Return the numbers of a run's actions by their phases."""
    found: dict[str, int] = {}
    for each in project.json("get", "action", run):
        found[each["phase"]] = found.get(each["phase"], 0) + 1
    return found


@pytest.mark.slow
def test_a_killed_run_is_recovered_where_it_was(project: Shell, tmp_path: Path) -> None:
    """After kill -9 when 700 of 1,000 children had ended, recovering executes 300."""
    calls = tmp_path / "calls"
    command = project.start(
        *("run", "--name", "one", "many.py", "steps", "--n", "1000", "--folder", str(tmp_path))
    )
    while not calls.exists() or len(calls.read_text().split()) < 702:
        assert command.poll() is None, command.communicate()
        time.sleep(0.05)
    command.kill()
    command.communicate()
    assert phases(project, "one")["succeeded"] == 700
    calls.write_text("")
    (tmp_path / "go").touch()
    done = project.json("rerun", "--recover", "one")
    assert done["outputs"] == {"o0": sum(range(1000))}
    assert sorted(map(int, calls.read_text().split())) == list(range(700, 1000))
    assert phases(project, done["run"]) == {"succeeded": 1001}
    wait_for_no_sleepers()


def test_a_map_takes_its_inputs_as_it_goes(project: Shell) -> None:
    """Never more than the window of 1,000 calls is in flight, nor more inputs are drawn."""
    done = project.json("run", "--local", "many.py", "window", "--n", "3000")
    count, most, drawn = done["outputs"]["o0"]
    assert count == 3000 and most <= 1000 and drawn <= 1000


@pytest.mark.parametrize("place", [("--local",), ()], ids=["local", "prepared"])
def test_runs_at_once_are_each_recorded(project: Shell, place: tuple[str, ...]) -> None:
    """Twenty runs write to one history: each action is there once, in the right phase."""
    n, total = (50, 20) if place else (5, 20)
    project("run", *place, "many.py", "adds", "--n", "1")
    commands = [
        project.start("-of", "json", "run", *place, "many.py", "adds", "--n", str(n))
        for _ in range(total)
    ]
    found = [json.loads(command.communicate()[0]) for command in commands]
    assert [each["outputs"] for each in found] == [{"o0": sum(range(n))}] * total
    for each in found:
        assert phases(project, each["run"]) == {"succeeded": n + 1}
    changes = _changes(project)
    assert len(changes) == len({*changes})
    children = 3 * (total * n + 1)  # Each was queued, ran, and succeeded.
    roots = 2 * (total + 1)  # Each ran, and succeeded.
    assert len(changes) == children + roots


def _changes(project: Shell) -> list[tuple[Any, ...]]:
    """Return the changes of actions that the history has numbered."""
    (path,) = project.home.rglob("history.sqlite")
    with sqlite3.connect(path) as database:
        rows: list[tuple[Any, ...]] = database.execute(
            "SELECT run, action, what FROM changes ORDER BY seq"
        ).fetchall()
    database.close()
    return rows


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_fills_up_ends_the_run(project: Shell) -> None:
    """The error reports it, nothing is left, and with space the run is recovered."""
    with mounted(project.home / "data", "size=3m") as data:
        done = project("run", "many.py", "larges", "--n", "50", "--size", "200000", exit_code=3)
        assert "disk is full" in done.stderr.lower() and "Traceback" not in done.stderr
        with suppress(OSError), open(f"{data}/filler", "wb", buffering=0) as filler:
            while True:  # To the last block.
                filler.write(bytes(4096))
        refused = project("run", "many.py", "adds", "--n", "1", exit_code=3).stderr
        assert "disk is full" in refused.lower() and "Traceback" not in refused
        wait_for_no_sleepers()
        subprocess.run(["mount", "-o", "remount,size=40m", data], check=True)
        assert project("run", "many.py", "adds", "--n", "2").stdout == "1\n"
        runs = project.json("get", "run", "--task-name", "many.larges")
        assert [each["phase"] for each in runs] == ["failed"]
        found = phases(project, runs[0]["name"])
        assert found["succeeded"] >= 1 and not found.keys() & {"running", "queued"}
        assert not list(Path(data).glob("v1/runs/*/actions/*"))
        again = project.json("rerun", "--recover", runs[0]["name"])
        assert again["outputs"] == {"o0": sum(200_000 + len(str(i)) for i in range(50))}
