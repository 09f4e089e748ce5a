"""`flyte abort`: ending runs from another terminal."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support.command import Shell, wait_for_no_sleepers


def started(flyte: Shell, *args: str) -> subprocess.Popen[str]:
    command = flyte.start("run", "--name", "one", *args)
    assert command.stdout and command.stdout.readline() == "started\n"
    return command


def test_a_run_is_aborted_from_another_terminal(flyte: Shell) -> None:
    """An abort ends a run with all its processes; the command and the history give the reason."""
    command = started(flyte, "tasks.py", "for_ever")
    assert "was aborted" in flyte("abort", "run", "one", "--reason", "not needed").stdout
    _, errors = command.communicate(timeout=30)
    assert command.returncode == 5 and "aborted it: not needed" in errors
    wait_for_no_sleepers()
    run = flyte.json("get", "run", "one")
    assert (
        run["phase"] == "aborted"
        and run["error"]["message"] == run["why"]
        and "not needed" in run["why"]
    )


@pytest.mark.parametrize("task", ["stubborn", "endless"])
def test_a_task_that_does_not_listen_is_ended_too(flyte: Shell, task: str) -> None:
    """An abort ends a task that ignores SIGTERM, or never stops writing while no one reads."""
    with open(flyte.project / "tasks.py", "a") as file:
        file.write(
            '\n@env.task\ndef endless() -> None:\n    print("started")\n    while True:\n       '
            ' print("x" * 99)\n'
        )
    command = started(flyte, "tasks.py", task)
    result = flyte.json("abort", "action", "one", "a0")
    assert result["run"] == "one" and result["phase"] == "aborted"
    command.communicate(timeout=30)
    assert command.returncode == 5


def test_a_local_run_is_aborted(flyte: Shell) -> None:
    """A local run ends as by Ctrl-C, with its processes and the exit code of an abort."""
    command = flyte.start("-of", "json", "run", "--local", "--name", "one", "tasks.py", "for_ever")
    assert command.stderr and any(line == "started\n" for line in command.stderr)
    flyte("abort", "run", "one")
    wait_for_no_sleepers()
    output, _ = command.communicate(timeout=30)
    assert command.returncode == 5 and json.loads(output)["error"]["type"] == "ActionAbortedError"


def test_a_run_that_waits_before_a_retry_is_aborted(flyte: Shell) -> None:
    """A run that waits before a retry is aborted, and no further attempt starts."""
    command = flyte.start("run", "--name", "one", "tasks.py", "patient")
    assert command.stderr and any("trying again in" in line for line in command.stderr)
    flyte("abort", "run", "one")
    command.communicate(timeout=30)
    assert command.returncode == 5 and flyte.json("get", "run", "one")["phase"] == "aborted"


def test_a_run_that_has_ended_is_not_aborted(flyte: Shell) -> None:
    """A run that has ended is not changed by an abort, whose message says how it ended."""
    flyte("run", "--name", "one", "tasks.py", "hello")
    assert "has ended already (succeeded)" in flyte("abort", "run", "one", exit_code=2).stderr
    assert flyte.json("get", "run", "one")["phase"] == "succeeded"
    assert "No run named 'two'" in flyte("abort", "run", "two", exit_code=4).stderr
    assert "No action named 'a1'" in flyte("abort", "action", "one", "a1", exit_code=4).stderr
    command = started_and_killed(flyte)
    assert "has ended already (failed)" in flyte("abort", "run", command, exit_code=2).stderr


def started_and_killed(flyte: Shell) -> str:
    command = flyte.start("run", "--name", "lost", "tasks.py", "for_ever")
    assert command.stdout and command.stdout.readline() == "started\n"
    command.kill()
    command.communicate(timeout=30)
    return "lost"
