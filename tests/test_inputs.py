"""Inputs as a user gives them to the installed command, and what is said of those that do not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FLYTE = os.path.join(os.path.dirname(sys.executable), "flyte")
HEAD = "import flyte\nenv = flyte.TaskEnvironment(name='t')\n"


class Project:
    """A folder with files of tasks, in which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> None:
        """Make a file; one of tasks begins with what all of them need."""
        (self.folder / name).write_text(HEAD + text if name.endswith(".py") else text, encoding="utf-8")

    def __call__(self, *command: str, exit_code: int = 0, input: str = "") -> "subprocess.CompletedProcess[str]":
        """What a command came to. No traceback of ours may be shown."""
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, input=input, timeout=120)
        assert done.returncode == exit_code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def run(self, *arguments: str, input: str = "") -> Any:
        """The outputs of `flyte run` with these arguments."""
        return json.loads(self(FLYTE, "-of", "json", "run", *arguments, input=input).stdout)["outputs"]

    def refusal(self, *arguments: str, exit_code: int = 2, input: str = "") -> str:
        """What is said by a `flyte run` that does not run anything."""
        return self(FLYTE, "run", *arguments, exit_code=exit_code, input=input).stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    return Project(tmp_path)


def test_a_file_that_cannot_be_described_is_no_failed_import(project: Project) -> None:
    """An object in it that breaks when it is looked at is not said to be an import that failed."""
    project.write("odd.py", "class Odd:\n    @property\n    def __class__(self): raise RuntimeError('look away')\n\nodd = Odd()\n")
    said = project.refusal("odd.py", "task", exit_code=3)
    assert "error: The tasks of odd.py could not be described: RuntimeError: look away" in said
    assert "Importing it went well" in said


def test_a_timeout_that_is_no_duration_is_the_declarations_fault(project: Project) -> None:
    """It is said of which task, and how a timeout is written."""
    project.write("late.py", "@env.task(timeout='soon')\ndef late() -> None: ...\n")
    assert "error: The timeout of t.late is no duration\n  It is 'soon'." in project.refusal("late.py", "late", exit_code=3)
