"""Tasks that call deployed tasks: each call is a child action, in its own deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Shell

LIBRARY = """
from dataclasses import dataclass
import os
import flyte

helper = flyte.TaskEnvironment(name="helper")
env = flyte.TaskEnvironment(name="lib", depends_on=[helper], env_vars={"COLOUR": "red"})

@dataclass
class Point:
    x: int

@helper.task
def add(a: int, b: int) -> int:
    return a + b

@env.task
def move(point: Point, by: int = 1) -> tuple[int, str]:
    return add(point.x, by), flyte.ctx().version

@env.task
async def colour() -> str:
    return os.environ["COLOUR"]

@env.task
async def fails(n: int) -> int:
    raise ValueError(f"no {n}")
"""
CALLS = """
import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import flyte
import flyte.remote

env = flyte.TaskEnvironment(name="calls")
get = flyte.remote.Task.get

@dataclass
class Point:
    x: int

@env.task
async def gathers() -> list[str]:
    move, colour = get("lib.move", version="v1"), get("lib.colour", auto_version="latest")
    red, blue = colour(), colour.override(env_vars={"COLOUR": "blue"})()
    found = await asyncio.gather(move(point=Point(1)), move(point={"x": 2}, by=5), red, blue)
    return [str(each) for each in found]

@env.task
def blocks() -> list[str]:
    move = get("lib.move", version="v1")
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda x: move(point={"x": x}), range(2)))
    details = move.fetch()
    return [str(found), details.name, details.version, str(details.interface.inputs[1])]

@env.task
async def catches() -> list[str]:
    found = []
    for name, inputs in (("fails", {"n": 3}), ("colour", {"hue": 1}), ("colours", {})):
        try:
            await get(f"lib.{name}", auto_version="latest")(**inputs)
        except flyte.errors.FlyteError as error:
            found.append(f"{type(error).__name__}: {error.what}")
    return found

@env.task
def current() -> str:
    return get("calls.current", auto_version="current").fetch().version
"""


@pytest.fixture
def shop(tmp_path: Path) -> Shell:
    """A project whose tasks call tasks that were deployed from another one, which is gone."""
    shell = Shell(tmp_path / "project", tmp_path / "home")
    shell.project.mkdir()
    (shell.project / "library.py").write_text(LIBRARY)
    shell("deploy", "--version", "v1", "--all", "library.py")
    (shell.project / "library.py").unlink()
    (shell.project / "calls.py").write_text(CALLS)
    return shell


def run(shop: Shell, task: str, *options: str) -> Any:
    """Run a task, and return the document of the command."""
    return shop.json("run", *options, "calls.py", task)


def test_calls_are_child_actions(shop: Shell) -> None:
    """Calls in coroutines and threads are children, and so are the calls that these make."""
    done = run(shop, "gathers")
    assert done["outputs"]["o0"] == ["(2, 'v1')", "(7, 'v1')", "red", "blue"]
    found = shop.json("get", "action", done["run"])
    tasks = sorted(each["task"] for each in found)
    assert tasks == [
        "calls.gathers",
        *["helper.add"] * 2,
        *["lib.colour"] * 2,
        *["lib.move"] * 2,
    ]
    parents = {each["name"]: each["task"] for each in found}
    assert {parents[each["parent"]] for each in found if each["task"] == "helper.add"} == {
        "lib.move"
    }
    blocked = run(shop, "blocks")["outputs"]["o0"]
    assert blocked == ["[(1, 'v1'), (2, 'v1')]", "lib.move", "v1", "<input by: int = 1>"]


def test_errors_name_what_is_wrong(shop: Shell) -> None:
    """Errors of the task, wrong inputs, and tasks that are missing are exceptions in the caller."""
    assert run(shop, "catches")["outputs"]["o0"] == [
        "ValueError: no 3",
        "InputError: The input 'hue' does not exist",
        "RemoteTaskNotFoundError: lib:v1 has no task 'colours'",
    ]


def test_another_version_is_another_action(shop: Shell) -> None:
    """Recovering takes over calls of the same pins only; `current` is the run's own version."""
    first = run(shop, "gathers")
    again = shop("rerun", "--recover", first["run"]).stderr
    assert "1 action of" in again
    (shop.project / "library.py").write_text(LIBRARY.replace("red", "green"))
    shop("deploy", "--version", "v2", "--all", "library.py")
    (shop.project / "library.py").unlink()
    assert run(shop, "gathers")["outputs"]["o0"] == ["(2, 'v1')", "(7, 'v1')", "green", "blue"]
    shop("deploy", "--version", "v3", "calls.py")
    assert shop.json("run", "deployed-task", "calls.current")["outputs"] == {"o0": "v3"}


def test_with_local_each_call_is_a_run(shop: Shell) -> None:
    """In the command's process, a call of a deployed task is a run of its own."""
    assert run(shop, "gathers", "--local")["outputs"]["o0"][2:] == ["red", "blue"]
    assert len(shop.json("get", "run", "--task-name", "lib.move")) == 2
