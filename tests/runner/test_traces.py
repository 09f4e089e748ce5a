"""Traced functions and durable clocks: a run remembers what they have returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Shell

TASKS = """
import asyncio, os, time
from dataclasses import dataclass
import flyte
import flyte.durable

env = flyte.TaskEnvironment(name="t")

@dataclass
class Point:
    x: int

def note(path, text):
    with open(path, "a") as file:
        file.write(text + "\\n")

@flyte.trace
def plain(path: str, point: Point) -> Point:
    note(path, "plain")
    return Point(point.x + 1)

@flyte.trace
async def later(path: str, x: int) -> int:
    note(path, "later")
    await asyncio.sleep(0)
    return x * 2

@flyte.trace
def counts(path: str, n: int):
    for i in range(n):
        note(path, "counts")
        yield i

@flyte.trace
async def counts_later(path: str, n: int):
    for i in range(n):
        note(path, "counts_later")
        yield i

@flyte.trace
def flaky(path: str) -> str:
    note(path, "flaky")
    if open(path).read().count("flaky") < 2:
        raise ValueError("again")
    return "done"

@env.task(retries=1)
async def main(path: str) -> list[str]:
    point = plain(path, Point(1))
    twice = [await later(path, 2), await later(path, 2)]
    items = [*counts(path, 2), *[i async for i in counts_later(path, 2)]]
    first, asleep = flyte.durable.time(), flyte.durable.now()
    await flyte.durable.sleep.aio(0.01)
    note(path, f"at {first} {asleep}")
    return [str(each) for each in (point, twice, items, flaky(path), type(point).__name__)]

@flyte.trace
async def calls_a_task(x: int) -> int:
    return await double(x)

@env.task
async def double(x: int) -> int:
    return 2 * x

@env.task
async def nested() -> int:
    return await calls_a_task(1)

@flyte.trace
def own_name() -> str:
    return flyte.ctx().action.name

@env.task
def named() -> bool:
    return own_name() != flyte.ctx().action.name and flyte.ctx().task_action.name == "a0"
"""

PLACES = pytest.mark.parametrize("options", [(), ("--local",)], ids=["prepared", "local"])


@pytest.fixture
def project(flyte: Shell) -> Shell:
    """A project with traced functions."""
    (flyte.project / "traced.py").write_text(TASKS)
    return flyte


def run(project: Shell, *args: str, exit_code: int = 0, options: tuple[str, ...] = ()) -> Any:
    """Run a task, and return the document of the command."""
    return project.json("run", *options, "traced.py", *args, exit_code=exit_code)


@PLACES
def test_a_retry_takes_over_what_was_traced(
    project: Shell, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Traced calls that succeeded are not made again, the one that raised is; clocks agree."""
    path = tmp_path / "calls"
    done = run(project, "main", "--path", str(path), options=options)
    assert done["outputs"]["o0"] == ["Point(x=2)", "[4, 4]", "[0, 1, 0, 1]", "done", "Point"]
    lines = path.read_text().splitlines()
    assert [each for each in lines if not each.startswith("at ")] == [
        *("plain", "later", "later", "counts", "counts", "counts_later", "counts_later"),
        *("flaky", "flaky"),
    ]
    first, second = (each for each in lines if each.startswith("at "))
    assert first == second
    traces = project.json("get", "action", done["run"])[1:]
    assert {each["engine"] for each in traces} == {"trace"}
    assert [each["task"] for each in traces][:3] == ["traced.plain", "traced.later", "traced.later"]


def test_a_recovered_run_takes_over_what_was_traced(project: Shell, tmp_path: Path) -> None:
    """An edited function is called again, the others are not."""
    path = tmp_path / "calls"
    file = project.project / "traced.py"
    file.write_text(file.read_text().replace("retries=1", "retries=0"))
    first = run(project, "main", "--path", str(path), exit_code=1)
    file.write_text(file.read_text().replace("return x * 2", "return x * 3"))
    path.write_text("flaky\n")
    done = project.json("rerun", "--recover", "--force", first["run"])
    assert done["outputs"]["o0"][1] == "[6, 6]"
    lines = [each for each in path.read_text().splitlines() if not each.startswith("at ")]
    assert lines == ["flaky", "later", "later", "flaky"]
    taken = [each for each in project.json("get", "action", done["run"]) if each["recovered_from"]]
    assert taken and {each["engine"] for each in taken} == {"trace"}
    whole = project.json("rerun", done["run"], "--recover")
    assert project.json("get", "io", whole["run"])["outputs"] == whole["outputs"]


@PLACES
def test_a_traced_function_calls_no_tasks(project: Shell, options: tuple[str, ...]) -> None:
    """A task call in a traced function is refused; its context names its own action."""
    error = run(project, "nested", exit_code=1, options=options)["error"]
    assert error["type"] == "TraceDoesNotAllowNestedTasksError"
    assert "t.double" in json.dumps(error)
    assert run(project, "named", options=options)["outputs"] == {"o0": True}


def test_outside_of_a_run_they_are_plain_functions(project: Shell, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import traced, flyte.durable, asyncio\n"
        f"print(traced.plain({str(tmp_path / 'x')!r}, traced.Point(1)))\n"
        f"print(list(traced.counts({str(tmp_path / 'x')!r}, 2)), flyte.durable.time() > 0)\n"
        "asyncio.run(flyte.durable.sleep.aio(0)); flyte.durable.sleep(0)\n"
        "print(bool(flyte.ctx()), flyte.ctx().action, flyte.get_custom_context())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project.project, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["Point(x=2)", "[0, 1] True", "False None {}"], done.stderr
