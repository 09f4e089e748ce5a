"""Deployments from Python: `flyte.deploy` and `flyte.remote.Task`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import Shell

TASKS = """
import asyncio
import datetime
import os
from dataclasses import dataclass
import flyte
import flyte.remote

env = flyte.TaskEnvironment(name="sdk", env_vars={"A": "declared"})

@dataclass
class Point:
    x: int

@env.task
def move(point: Point, by: int = 1, on: datetime.date | None = None) -> tuple[int, str]:
    return point.x + by, str(on)

@env.task
async def variable(name: str) -> str:
    return os.environ[name]

@env.task
def fails() -> None:
    raise ValueError("no")

@env.task
def current() -> str:
    return flyte.remote.Task.get("sdk.variable", auto_version="current").fetch().version
"""


@pytest.fixture
def flyte(project: Path, tmp_path: Path) -> Shell:
    return Shell(project, tmp_path / "home")


def python(flyte: Shell, code: str) -> list[str]:
    """Run code below a main guard in a file with tasks, and return the lines that it prints."""
    lines = "\n".join("    " + line for line in code.splitlines())
    (flyte.project / "sdk.py").write_text(f'{TASKS}\nif __name__ == "__main__":\n{lines}\n')
    done = subprocess.run(
        [sys.executable, "sdk.py"],
        cwd=flyte.project,
        env=flyte.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_environments_are_deployed_from_python(flyte: Shell) -> None:
    """`flyte.deploy` gives the same digest as the command, and a dry run deploys nothing."""
    code = """
planned = flyte.deploy(env, dry_run=True).envs["sdk"]
done = flyte.deploy(env).envs["sdk"]
print(planned.state, done.state, planned.digest == done.digest, done.version == done.digest[7:19])
print(asyncio.run(flyte.deploy.aio(env)).summary_repr() == f"sdk:{done.version} {done.digest} unchanged ({', '.join(done.tasks)})")
try:
    flyte.deploy(env, version="latest")
except flyte.errors.FlyteError as error:
    print(type(error).__name__)
"""
    assert python(flyte, code) == ["planned created True True", "True", "ReferenceInvalid"]
    assert flyte.json("deploy", "sdk.py")["deployments"][0]["state"] == "unchanged"


def test_deployed_tasks_are_called(flyte: Shell) -> None:
    """Deployed tasks are called with JSON values or objects by name, with an explicit version."""
    code = """
flyte.deploy(env, version="v1")
task = flyte.remote.Task.get("sdk.move", version="v1")
print(task(point={"x": 1}), task(point=Point(2), by=2, on=datetime.date(2026, 1, 2)))
run = flyte.run(task, point={"x": 5})
print(run.outputs().named_outputs, run.details().version, run.phase)
details = flyte.remote.Task.get("sdk.move", auto_version="latest").fetch()
print(details.name, details.version, details.interface.inputs[1:], details.env_vars)
print(flyte.remote.Task.get("sdk.move", version=details.digest).fetch().version)
variable = flyte.remote.Task.get("sdk.variable", version="v1")
print(variable(name="A"), variable.override(env_vars={"A": "other"})(name="A"), asyncio.run(variable.aio(name="A")))
print([each.name for each in flyte.remote.Task.listall()], len(list(flyte.remote.Task.listall(by_task_name="sdk.move"))))
print(flyte.remote.Task.get("sdk.current", version="v1")())
print(flyte.with_runcontext(name="one").run(variable, name="A").name, flyte.with_runcontext().rerun("one").outputs()[0])
"""
    assert python(flyte, code) == [
        "(2, 'None') (4, '2026-01-02')",
        "{'o0': 6, 'o1': 'None'} v1 succeeded",
        "sdk.move v1 [<input by: int = 1>, <input on: date | None = null>] {'A': 'declared'}",
        "v1",
        "declared other declared",
        "['sdk.current:v1', 'sdk.fails:v1', 'sdk.move:v1', 'sdk.variable:v1'] 1",
        "v1",
        "one declared",
    ]


def test_what_cannot_be_is_said(flyte: Shell) -> None:
    """Each misuse raises its own error; nothing is looked up before its use."""
    code = """
flyte.deploy(env, version="v1")
get = flyte.remote.Task.get
task = get("sdk.move", version="v1")
for call in (
    lambda: get("sdk.move"),
    lambda: get("sdk.move", version="v1", auto_version="latest"),
    lambda: get("sdk", version="v1"),
    lambda: get("sdk.move", auto_version="current"),
    lambda: get("sdk.move", version="v2").fetch(),
    lambda: get("sdk.mve", version="v1").fetch(),
    lambda: task(),
    lambda: task(point={"x": "one"}),
    lambda: task(other=1),
    lambda: flyte.run(task, 1),
    lambda: flyte.with_runcontext(mode="local").run(task, point={"x": 1}),
    lambda: task.override(nothing=1),
    lambda: get("sdk.fails", version="v1")(),
    lambda: flyte.deploy(flyte.TaskEnvironment(name="empty")),
    lambda: flyte.deploy(),
):
    try:
        print(call())
    except flyte.errors.FlyteError as error:
        print(type(error).__name__, error.what)
"""
    assert python(flyte, code) == [
        "UsageError Cannot choose a version of sdk.move",
        "UsageError Cannot choose a version of sdk.move",
        "ReferenceInvalid 'sdk:v1' is not a reference to a deployed task",
        "UsageError There is no current version of sdk.move",
        "RemoteTaskNotFoundError sdk has no version 'v2'",
        "RemoteTaskNotFoundError sdk:v1 has no task 'mve'",
        "InputError The input 'point' is missing",
        "InputError The input 'point.x' cannot be 'one'",
        "InputError The input 'other' does not exist",
        "UsageError sdk.move:v1 takes its inputs by name only",
        "UsageError sdk.move:v1 is deployed, so it cannot run in this process",
        "DeclarationTypeError A task has no option 'nothing'",
        "RuntimeUserError sdk.fails: ValueError: no",
        "UsageError No environment named 'empty' in sdk.py",
        "UsageError flyte.deploy needs at least one environment",
    ]
