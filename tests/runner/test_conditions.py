"""Conditions: steps of a run that end when somebody answers them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import FLYTE, Shell
from tests.support.terminal import Terminal

TASKS = """
import asyncio
import flyte

env = flyte.TaskEnvironment(name="c")

@env.task
async def asks() -> str:
    condition = await flyte.new_condition.aio("approve", prompt="Is it ok?", data_type=bool)
    answer = await condition.wait.aio()
    return f"{answer!r}"

@env.task
def asks_number() -> float:
    return flyte.new_condition("limit", data_type=float).wait() * 2

@env.task
def in_time() -> str:
    try:
        flyte.new_condition("late", data_type=str, timeout=0.3).wait()
    except flyte.errors.ConditionTimedoutError as error:
        return f"late: {error}"
    return "answered"

@env.task
def fails_after() -> str:
    answer = flyte.new_condition("word", data_type=str).wait()
    if answer == "first":
        import os
        if not os.path.exists("/tmp/never"):
            raise ValueError(answer)
    return answer
"""
PLACES = pytest.mark.parametrize("options", [(), ("--local",)], ids=["prepared", "local"])


@pytest.fixture
def project(flyte: Shell) -> Shell:
    """A project with tasks that wait for conditions."""
    (flyte.project / "asks.py").write_text(TASKS)
    return flyte


def waiting(project: Shell, name: str) -> dict[str, Any]:
    """Wait until a run waits for a condition, and return its action."""
    while True:
        if project("get", "run", name, exit_code=None).returncode == 0:
            for each in project.json("get", "action", name):
                if each["task"] == "condition.wait" and each["phase"] == "running":
                    found: dict[str, Any] = each
                    return found
        time.sleep(0.05)


def start(project: Shell, task: str, *options: str) -> subprocess.Popen[str]:
    """Start a run named `one`."""
    return project.start("run", "--name", "one", *options, "asks.py", task)


@PLACES
def test_a_condition_is_answered_from_elsewhere(project: Shell, options: tuple[str, ...]) -> None:
    """By its name or its id; the value has the declared type, and the first answer counts."""
    command = start(project, "asks", *options)
    action = waiting(project, "one")
    wrong = project("signal", "condition", "one", "approve", "maybe", exit_code=2).stderr
    assert "cannot be 'maybe'" in wrong and "bool" in wrong
    unknown = project("signal", "condition", "one", "other", "true", exit_code=4).stderr
    assert "approve (a" in unknown
    assert project("signal", "condition", "one", action["name"][:6], "yes").stdout == (
        "Answered with True.\n"
    )
    out, errors = command.communicate(timeout=30)
    assert out.splitlines()[-1] == "True" and "flyte signal condition one" in errors
    again = project("signal", "condition", "one", "approve", "no", exit_code=2).stderr
    assert "answered already" in again


@PLACES
def test_a_condition_can_time_out(project: Shell, options: tuple[str, ...]) -> None:
    done = project.json("run", *options, "asks.py", "in_time")
    assert done["outputs"]["o0"].startswith("late: The condition 'late' was not answered")


def test_a_condition_is_answered_at_the_terminal(project: Shell) -> None:
    """A wrong answer is asked for again."""
    terminal = Terminal(project, FLYTE, "run", "asks.py", "asks_number")
    terminal.expect("The condition 'limit' waits")
    terminal.type("many")
    terminal.expect("That is not an answer. Expected: float")
    terminal.type("2.5")
    terminal.expect("5.0")
    terminal.end()


def test_an_answer_survives_the_command(project: Shell) -> None:
    """A recovered run asks only for what was not answered before."""
    command = start(project, "fails_after")
    waiting(project, "one")
    project("signal", "condition", "one", "word", "first")
    assert command.wait(30) == 1
    command.communicate()
    again = project("rerun", "--recover", "one", exit_code=1)
    assert "ValueError: first" in again.stderr and "waits for a value" not in again.stderr


def test_an_abort_ends_the_wait(project: Shell, tmp_path: Path) -> None:
    command = start(project, "asks")
    waiting(project, "one")
    project("abort", "run", "one")
    command.communicate(timeout=30)
    assert {each["phase"] for each in project.json("get", "action", "one")} == {"aborted"}


def test_what_a_condition_cannot_be() -> None:
    """Settings are checked where the condition is declared, and the wait is refused elsewhere."""
    import flyte_build as flyte

    with pytest.raises(TypeError, match="bool, int, float or str"):
        flyte.new_condition("x", data_type=list)
    with pytest.raises(ValueError, match="positive"):
        flyte.new_condition("x", timeout=0)
    with pytest.raises(RuntimeError, match="only be waited for in a task"):
        flyte.new_condition("x").wait()
