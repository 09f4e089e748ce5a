"""What the commands say: errors, help, where output goes."""

from __future__ import annotations

import pytest

from tests.command import Shell


def test_results_go_to_standard_output_and_all_else_to_standard_error(flyte: Shell) -> None:
    """A script reads the result alone."""
    done = flyte("run", "tasks.py", "hello")
    assert done.stdout == "Hello, World!\n"
    assert "made" in done.stderr and "run" in done.stderr and "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("args", "exit_code", "parts"),
    [
        (["run", "nope.py", "hello"], 2, ["nope.py does not exist"]),
        (["run", "tasks.py", "helo"], 2, ["no task 'helo'", "Did you mean 'hello'?"]),
        (["run", "tasks.py"], 2, ["hello, hello_async"]),
        (["run", "tasks.py", "ends"], 2, ["'code' is missing", "--code 3"]),
        (["run", "tasks.py", "ends", "--code", "x"], 2, ["'code'", "'x'", "int", "--code 3"]),
        (["run", "tasks.py", "hello", "--nam", "x"], 2, ["--nam"]),
        (["run", "--copy-style", "none", "tasks.py", "hello"], 2, ["--version"]),
        (["run", "--version", "a b", "tasks.py", "hello"], 2, ["--version"]),
        (["run", "--env", "x", "tasks.py", "hello"], 2, ["NAME=VALUE"]),
        (["rum"], 2, ["Did you mean 'run'?"]),
        (["get", "run", "nope"], 4, ["no run 'nope'"]),
        (["run", "broken.py", "x"], 3, ["broken.py:2", "syntax error"]),
        (["run", "importing.py", "x"], 3, ["importing.py:1", "no_such_module", "Install"]),
        (["run", "raising.py", "x"], 3, ["raising.py:1", "ZeroDivisionError"]),
        (["run", "badname.py", "x"], 3, ["'Bad Name'", "lower-case"]),
        (["run", "ending.py", "x"], 3, ["ended its process"]),
    ],
)
def test_an_error_says_what_happened_and_what_to_do(flyte: Shell, args: list[str], exit_code: int, parts: list[str]) -> None:
    """On standard error, without a traceback of ours; as JSON in one shape."""
    for name, text in {
        "broken.py": "x = 1\ny = = 2\n",
        "importing.py": "import no_such_module\n",
        "raising.py": "1 / 0\n",
        "badname.py": "import flyte\nflyte.TaskEnvironment(name='Bad Name')\n",
        "ending.py": "import os\nos._exit(9)\n",
    }.items():
        (flyte.project / name).write_text(text)
    done = flyte(*args, exit_code=exit_code)
    assert done.stdout == "" and "error: " in done.stderr
    assert all(part in done.stderr for part in parts), done.stderr
    error = flyte.json(*args, exit_code=exit_code)["error"]
    assert error.keys() == {"type", "message", "why", "hint", "exit_code"} and error["exit_code"] == exit_code


def test_help_is_made_from_the_tasks_signature_and_docstring(flyte: Shell) -> None:
    """FILE --help lists tasks, FILE TASK --help shows inputs."""
    assert "Greet somebody." in flyte("run", "tasks.py", "--help").stdout
    text = flyte("run", "tasks.py", "hello", "--help").stdout
    assert "--name" in text and "Who is greeted." in text and "World" in text and "Greet somebody." in text


def test_the_built_in_example_needs_no_file(flyte: Shell) -> None:
    """`flyte run hello`, with and without inputs."""
    assert flyte("run", "hello").stdout == "Hello, World!\n"
    assert flyte("run", "hello", "--name", "Ada").stdout == "Hello, Ada!\n"


def test_local_runs_in_the_commands_own_process(flyte: Shell) -> None:
    """From the working tree, with its standard input; the history knows it."""
    assert flyte("run", "--local", "tasks.py", "hello").stdout == "Hello, World!\n"
    assert flyte.last_run()["phase"] == "succeeded"
    result = flyte.json("run", "--local", "tasks.py", "prints", "--size", "100")
    assert result["outputs"] == {"o0": 100}


def test_what_has_no_annotation_is_said(flyte: Shell) -> None:
    """Once for each run, with the names; one that says `Any` means it."""
    (flyte.project / "bare.py").write_text(
        "import flyte\nfrom typing import Any\nenv = flyte.TaskEnvironment(name='bare')\n"
        "@env.task\ndef adds(a, b: int, c: Any = 1):\n    return b\n"
        "@env.task\ndef says(a: Any) -> Any:\n    return a\n"
    )
    text = "note: a, the result of bare.adds have no annotation"
    for command in (["run"], ["run", "--local"]):
        assert flyte(*command, "bare.py", "adds", "--a", "1", "--b", "2").stderr.count(text) == 1
        assert "no annotation" not in flyte(*command, "bare.py", "says", "--a", "1").stderr
