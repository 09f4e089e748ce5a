"""Each file in `examples/` runs, through the installed command, with the documented outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import CHECKOUT

FLYTE = os.path.join(os.path.dirname(sys.executable), "flyte")
TRIP = ["--trip", '{"city": "Oslo", "days": 2}', "--start", "2026-05-01T08:00:00Z"]
PARCEL = ["--size", "small", "--colour", "green", "--price", "9.90", "--letter", "base64:aGk="]
WORDS = ["--words", '["tree", "pack", "key"]']


class Commands:
    """A runner of commands at the project's root, with their own home."""

    def __init__(self, home: Path) -> None:
        self._env = {**os.environ, "FLYTE_HOME": str(home)}

    def __call__(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command without terminal and input."""
        return subprocess.run(
            command,
            cwd=CHECKOUT,
            env=self._env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )

    def outputs(self, *arguments: str) -> dict[str, Any]:
        """Return the outputs of `flyte run` with these arguments, as the history has them."""
        done = self(FLYTE, "run", *arguments)
        assert done.returncode == 0, done.stderr
        (run,) = json.loads(self(FLYTE, "-of", "json", "get", "run", "--limit", "1").stdout)
        document: dict[str, Any] = json.loads(
            self(FLYTE, "-of", "json", "get", "run", run["name"]).stdout
        )
        assert document["phase"] == "succeeded"
        found: dict[str, Any] = document["outputs"]
        return found


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """Commands whose `FLYTE_HOME` is the test's own."""
    return Commands(tmp_path / "home")


@pytest.mark.parametrize(
    ("arguments", "outputs"),
    [
        (["hello.py", "hello", "--name", "you"], {"o0": "Hello, you!"}),
        (["pipeline.py", "main"], {"o0": 5.0}),
        (
            ["pipeline.py", "careful", "--numbers", "[1, 0]"],
            {"o0": ["6.0", "ZeroDivisionError: division by zero"]},
        ),
        (["pipeline.py", "bill", "--items", '["tea", "milk"]'], {"o0": 10.5}),
        (["hello.py", "hello_async"], {"o0": "Hello, World!"}),
        (
            ["inputs.py", "plan", *TRIP],
            {"summary": "Oslo for you", "end": "2026-05-03T12:00:00+00:00", "cost": 160.0},
        ),
        (
            [
                "inputs.py",
                "plan",
                *TRIP,
                "--guests",
                "Ann",
                "--guests",
                "Bo",
                "--insured",
                "--travel-time",
                "90m",
                "--note",
                "hi",
            ],
            {
                "summary": "Oslo for you and Ann and Bo: hi",
                "end": "2026-05-03T11:00:00+00:00",
                "cost": 534.0,
            },
        ),
        (
            [
                "inputs.py",
                "parcel",
                *PARCEL,
                "--stops",
                "Oslo",
                "--stops",
                "2",
                "--discount",
                "inputs:half",
            ],
            {
                "o0": {
                    "what": "a small green parcel",
                    "route": "Oslo > 2 h",
                    "letter": 2,
                    "price": "4.95",
                }
            },
        ),
        (["inputs.py", "divide", "--dividend", "17", "--divisor", "5"], {"o0": 3, "o1": 2}),
        (["script.py", "total", "--count", "4"], {"o0": 10}),
        (["calls.py", "report", *WORDS], {"o0": {"tree": 4, "pack": 4, "key": 3}}),
        (["calls.py", "total", *WORDS], {"o0": 11}),
        (["files.py", "count", "--word", "bundle"], {"o0": {"packs.txt": 2, "words.txt": 1}}),
    ],
)
def test_an_example_gives_what_it_says(
    commands: Commands, arguments: list[str], outputs: dict[str, Any]
) -> None:
    """An example has the same outputs in a separate process and with `--local`."""
    file, *rest = arguments
    assert commands.outputs(f"examples/{file}", *rest) == outputs
    assert commands.outputs("--local", f"examples/{file}", *rest) == outputs


def test_every_example_is_tried() -> None:
    """Every example is tested above."""
    (mark,) = (
        each for each in test_an_example_gives_what_it_says.pytestmark if each.name == "parametrize"
    )
    assert {arguments[0] for arguments, _ in mark.args[1]} == {
        path.name for path in CHECKOUT.glob("examples/*.py")
    }


def test_the_script_runs_its_own_task(commands: Commands) -> None:
    """`python examples/script.py` prepares and runs as the command does, and is in the history."""
    done = commands(sys.executable, "examples/script.py")
    assert done.returncode == 0, done.stderr
    assert "adding 100 numbers\nResult: 5050\nPhase: succeeded\nDetails: file:///" in done.stdout
    runs = json.loads(commands(FLYTE, "-of", "json", "get", "run").stdout)
    assert [(run["task"], run["phase"]) for run in runs] == [("script.total", "succeeded")]


def test_the_built_in_example_needs_no_file(commands: Commands) -> None:
    """`flyte run hello` works anywhere."""
    assert commands(FLYTE, "run", "hello", "--name", "you").stdout == "Hello, you!\n"


def test_a_failing_example_says_where(commands: Commands) -> None:
    """A task that raises exits with 1, and its traceback names the user's file."""
    done = commands(
        FLYTE, "run", "examples/inputs.py", "divide", "--dividend", "1", "--divisor", "0"
    )
    assert done.returncode == 1
    assert 'File "examples/inputs.py"' in done.stderr
    assert "failed: inputs.divide: ZeroDivisionError" in done.stderr
