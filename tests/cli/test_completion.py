"""Completion in a shell: what the tab key offers."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.command import FLYTE, Shell

LOUD = """
import os
open(os.environ["WITNESS"], "a").write("x")
print("imported")
from typing import Literal
import flyte
env = flyte.TaskEnvironment(name="loud")
@env.task
def one(name: str, kind: Literal["red", "round"] = "red", is_it: bool = False) -> str:
    return name
@env.task
def other() -> None: ...
"""


def offered(flyte: Shell, *words: str, env: dict[str, str] | None = None) -> list[str]:
    """Return the completions of the last word in bash, and check that nothing else is printed."""
    line = {
        "COMP_WORDS": " ".join(["flyte", *words]),
        "COMP_CWORD": str(len(words)),
        "_FLYTE_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [FLYTE],
        cwd=flyte.project,
        env={**flyte.environment, **line, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return [line.removeprefix("plain,") for line in done.stdout.split()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["r"], ["registry", "rerun", "run"]),
        (["get", "lo"], ["logs"]),
        (["run", "ta"], ["file,ta"]),
        (["run", "--copy-style", "l"], ["loaded_modules"]),
        (["run", "--inputs-file", "x"], ["file,x"]),
        (["run", "--eng"], ["--engine"]),
        (["run", "--local", "--cop"], ["--copy-style"]),
        (["run", "--engine", "d"], ["docker"]),
        (["run", "tasks.py", "--loc"], ["--locked", "--local"]),
        (["run", "no_such_file.py", "--loc"], ["--locked", "--local"]),
        (["run", "tasks.py", "hello"], ["hello", "hello_async"]),
        (["run", "--copy-style", "all", "tasks.py", "hello", "--n"], ["--name"]),
        (["run", "tasks.py", "hello", "--name", "W"], []),
        (["run", "tasks.py", "no_such_task", "--n"], []),
        (["run", "no_such_file.py", "h"], []),
        (["run", "python-script", "x"], ["file,x"]),
        (["run", "python-script", "--tim"], ["--timeout"]),
        (["run", "deployed-task", "--run-d"], ["--run-domain"]),
        (["rum", ""], []),
    ],
)
def test_the_tab_key_offers_what_may_come(
    flyte: Shell, words: list[str], expected: list[str]
) -> None:
    """Commands, options, files, tasks and inputs are completed, with their values.

    Nothing is offered if something is wrong.
    """
    assert offered(flyte, *words) == expected


def test_a_recorded_file_is_not_imported(flyte: Shell) -> None:
    """A file is imported for completion only if it is not recorded.

    A separate process imports it, and its output is dropped.
    """
    (flyte.project / "loud.py").write_text(LOUD)
    witness = flyte.home.parent / "witness"
    env = {"WITNESS": str(witness)}
    assert offered(flyte, "run", "loud.py", "", env=env) == ["one", "other"]
    assert witness.read_text() == "x"
    assert offered(flyte, "run", "loud.py", "o", env=env) == ["one", "other"]
    assert offered(flyte, "run", "loud.py", "one", "--kind", "", env=env) == ["red", "round"]
    assert offered(flyte, "run", "loud.py", "one", "--is-it", "t", env=env) == ["true"]
    assert offered(flyte, "run", "loud.py", "one", "--is", env=env) == ["--is-it", "--is_it"]
    assert witness.read_text() == "x"


def test_runs_are_offered_where_one_is_meant(flyte: Shell) -> None:
    """`abort` offers running runs, and `rerun` all runs and the inputs of the task."""
    flyte("run", "--name", "first", "tasks.py", "hello")
    flyte("run", "--name", "second", "tasks.py", "hello")
    assert (
        offered(flyte, "get", "run", "")
        == offered(flyte, "get", "logs", "")
        == offered(flyte, "rerun", "")
        == ["second", "first"]
    )
    assert offered(flyte, "get", "io", "f") == offered(flyte, "rerun", "f") == ["first"]
    assert offered(flyte, "rerun", "first", "--na") == ["--name"]
    command = flyte.start("run", "--name", "third", "tasks.py", "for_ever")
    assert command.stdout and command.stdout.readline() == "started\n"
    assert offered(flyte, "abort", "run", "") == ["third"]
    flyte("abort", "run", "third")
    command.communicate(timeout=30)
    assert offered(flyte, "abort", "run", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(flyte: Shell, shell: str) -> None:
    """The line in the help prints the shell's script, which switches completion on."""
    assert (
        f"_FLYTE_COMPLETE={shell}_complete"
        in flyte(env={"_FLYTE_COMPLETE": f"{shell}_source"}).stdout
    )
    assert "_FLYTE_COMPLETE=bash_source" in flyte("--help").stdout
