"""Messages of the commands: errors, help, and which stream they go to."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.support.command import FLYTE, TASKS, Shell
from tests.support.files import ROOT, as_root, mounted


def test_results_go_to_standard_output_and_all_else_to_standard_error(flyte: Shell) -> None:
    """Standard output has the result alone, so that scripts can read it."""
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
        (["get", "run", "nope"], 4, ["No run named 'nope'"]),
        (["run", "broken.py", "x"], 3, ["broken.py:2", "syntax error"]),
        (["run", "importing.py", "x"], 3, ["importing.py:1", "no_such_module", "Install"]),
        (["run", "raising.py", "x"], 3, ["raising.py:1", "ZeroDivisionError"]),
        (["run", "badname.py", "x"], 3, ["'Bad Name'", "lower-case"]),
        (["run", "ending.py", "x"], 3, ["terminated the process"]),
        (["run", "indented.py", "x"], 3, ["indented.py:2", "syntax error"]),
        (["run", "zero.py", "x"], 3, ["zero.py: syntax error", "null bytes"]),
        (["run", "latin.py", "x"], 3, ["latin.py:1", "utf-8"]),
        (["run", "leaving.py", "x"], 3, ["leaving.py:1", "SystemExit"]),
        (
            ["run", "speechless.py", "x"],
            3,
            ["speechless.py:3", "A: <exception str() failed: ValueError>"],
        ),
        (["run", "long.py", "x"], 3, ["long.py:1", "1,000,000 characters"]),
        (["run", "json.py", "x"], 3, ["json.py cannot be imported", "another name"]),
        (["run", "flyte.py", "x"], 3, ["flyte.py cannot be imported", "another name"]),
        (["run", "classy.py", "x"], 3, ["classy.py:3", "must be a function"]),
        (["run", "task.py", "hello"], 2, ["task.py does not exist", "Did you mean tasks.py?"]),
        (["run", "tasks"], 2, ["Did you mean tasks.py?"]),
        (["run", ".", "hello"], 2, ["is a directory"]),
        (["run", "notes.txt", "hello"], 2, ["not a Python file"]),
        (["run", "tasks.py", "--name", "Ada"], 2, ["No task given"]),
        (["run", "tasks.py", "hello", "Ada"], 2, ["Unexpected argument 'Ada'", "--name"]),
        (["run", "tasks.py", "fails", "Ada"], 2, ["Unexpected argument 'Ada'", "has no inputs"]),
        (["run", "tasks.py", "hello", "--name"], 2, ["--name"]),
        (["run"], 2, ["FILE"]),
        (["tasks.py", "hello"], 2, ["Did you mean 'run tasks.py'?"]),
        (["get", "logs", "nope"], 4, ["No run named 'nope'"]),
        (["abort", "run", "nope"], 4, ["No run named 'nope'"]),
    ],
)
def test_an_error_says_what_happened_and_what_to_do(
    flyte: Shell, args: list[str], exit_code: int, parts: list[str]
) -> None:
    """An error says what happened and what to do, without a traceback; JSON has one shape."""
    for name, text in {
        "broken.py": "x = 1\ny = = 2\n",
        "importing.py": "import no_such_module\n",
        "raising.py": "1 / 0\n",
        "badname.py": "import flyte\nflyte.TaskEnvironment(name='Bad Name')\n",
        "ending.py": "import os\nos._exit(9)\n",
        "indented.py": "def f():\nx = 1\n",
        "zero.py": "x = 1\0\n",
        "latin.py": "x = '\xe9'\n",
        "leaving.py": "raise SystemExit(3)\n",
        "speechless.py": (
            "class A(Exception):\n    def __str__(self): raise ValueError\nraise A()\n"
        ),
        "long.py": "raise ValueError('x' * 1_000_000)\n",
        "json.py": "",
        "flyte.py": "",
        "classy.py": (
            "import flyte\nenv = flyte.TaskEnvironment(name='x')\n@env.task\nclass Job: ...\n"
        ),
        "notes.txt": "",
    }.items():
        (flyte.project / name).write_text(text, encoding="latin-1")
    if args[1:2] != ["json.py"]:  # It would be in the way of everything.
        (flyte.project / "json.py").unlink()
    if args[1:2] != ["flyte.py"]:
        (flyte.project / "flyte.py").unlink()
    done = flyte(*args, exit_code=exit_code)
    assert done.stdout == "" and "error: " in done.stderr
    assert all(part in done.stderr for part in parts), done.stderr
    error = flyte.json(*args, exit_code=exit_code)["error"]
    assert (
        error.keys() == {"type", "message", "why", "hint", "exit_code"}
        and error["exit_code"] == exit_code
    )


def test_the_log_can_be_json(flyte: Shell) -> None:
    """The log can be JSON lines on standard error; results and the tasks' output stay the same."""
    (flyte.project / "flyte.toml").write_text('task.org = "mine"\n')
    done = flyte("--log-format", "json", "run", "tasks.py", "hello")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == "Hello, World!\n" and all(
        {"time", "level", "message"} == line.keys() for line in lines
    )
    assert any(
        line["level"] == "info" and line["message"].startswith("made tree (") for line in lines
    )
    assert any(
        line["level"] == "warning" and "ignored: task.org." in line["message"] for line in lines
    )
    error = json.loads(
        flyte("--log-format=json", "run", "tasks.py", "ends", exit_code=2).stderr.splitlines()[-1]
    )
    assert (error["level"], error["type"], error["exit_code"]) == ("error", "InputError", 2)
    assert "'code' is missing" in error["message"] and "--code 3" in error["hint"]
    last, *_ = reversed(
        flyte(
            "--log-format", "json", "run", "--local", "tasks.py", "ends", "--cod", "1", exit_code=2
        ).stderr.splitlines()
    )
    assert json.loads(last)["type"] == "UsageError"
    failed = flyte("--log-format", "json", "run", "--local", "tasks.py", "fails", exit_code=1)
    assert any(
        json.loads(line)["message"].startswith("failed: t.fails: ValueError")
        for line in failed.stderr.splitlines()
    )
    both = flyte("-of", "json", "--log-format", "json", "run", "tasks.py", "hello")
    assert json.loads(both.stdout)["phase"] == "succeeded" and all(
        map(json.loads, both.stderr.splitlines())
    )


def test_an_organisation_is_kept_and_said_to_be_unused(flyte: Shell) -> None:
    """`--org` sets the setting, and is reported once, by any command, to have no effect."""
    assert flyte("-o", "mine", "config", "get", "task.org").stdout == "mine\n"
    for command in (["config"], ["get", "run"], ["run", "tasks.py", "hello"]):
        assert flyte("--org", "mine", *command).stderr.count("has no effect yet: task.org.") == 1


def test_help_is_made_from_the_tasks_signature_and_docstring(flyte: Shell) -> None:
    """`FILE --help` lists tasks, and `FILE TASK --help` shows inputs."""
    assert "Greet somebody." in flyte("run", "tasks.py", "--help").stdout
    text = flyte("run", "tasks.py", "hello", "--help").stdout
    assert (
        "--name" in text
        and "Who is greeted." in text
        and "World" in text
        and "Greet somebody." in text
    )


def test_the_built_in_example_needs_no_file(flyte: Shell) -> None:
    """`flyte run hello` needs no file, with and without inputs."""
    assert flyte("run", "hello").stdout == "Hello, World!\n"
    assert flyte("run", "hello", "--name", "Ada").stdout == "Hello, Ada!\n"


def test_local_runs_in_the_commands_own_process(flyte: Shell) -> None:
    """A local run is in the command's process, from the working tree, with its standard input.

    The history has it.
    """
    assert flyte("run", "--local", "tasks.py", "hello").stdout == "Hello, World!\n"
    assert flyte.last_run()["phase"] == "succeeded"
    result = flyte.json("run", "--local", "tasks.py", "prints", "--size", "100")
    assert result["outputs"] == {"o0": 100}


def test_what_has_no_annotation_is_said(flyte: Shell) -> None:
    """Inputs and results without annotation are noted once for each run; `Any` counts as one."""
    (flyte.project / "bare.py").write_text(
        "import flyte\nfrom typing import Any\nenv = flyte.TaskEnvironment(name='bare')\n"
        "@env.task\ndef adds(a, b: int, c: Any = 1):\n    return b\n"
        "@env.task\ndef says(a: Any) -> Any:\n    return a\n"
    )
    text = "note: a, the result of bare.adds have no annotation"
    for command in (["run"], ["run", "--local"]):
        assert flyte(*command, "bare.py", "adds", "--a", "1", "--b", "2").stderr.count(text) == 1
        assert "no annotation" not in flyte(*command, "bare.py", "says", "--a", "1").stderr


def without_rights(*command: str) -> list[str]:
    """Return the command, run without root's override of permissions."""
    rights = "-dac_override,-dac_read_search"
    return (
        ["setpriv", "--bounding-set", rights, "--inh-caps", rights, *command]
        if ROOT
        else [*command]
    )


needs_setpriv = pytest.mark.skipif(
    ROOT and not shutil.which("setpriv"), reason="root needs setpriv to give its rights up"
)


@needs_setpriv
@pytest.mark.parametrize("what", ["home", "store", "database", "file", "module", "folder"])
def test_what_may_not_be_read_or_written_is_named(flyte: Shell, what: str) -> None:
    """An unreadable or unwritable store or project is an error, with a hint.

    Nothing is left half done, and a run works again afterwards.
    """
    (flyte.project / "tasks.py").write_text("import helper\n" + TASKS)
    (flyte.project / "helper.py").write_text("")
    flyte("run", "tasks.py", "hello")
    place, mode = {
        "home": (flyte.home.parent / "locked", 0o555),
        "store": (flyte.home / "data/v1/runs", 0o555),
        "database": (flyte.home / "data/v1/history.sqlite", 0o000),
        "file": (flyte.project / "tasks.py", 0o000),
        "module": (flyte.project / "helper.py", 0o000),
        "folder": (flyte.project, 0o000),
    }[what]
    env = flyte.environment
    if what == "home":
        place.mkdir()
        env = {**env, "FLYTE_HOME": f"{place}/flyte"}
    before = place.stat().st_mode
    place.chmod(mode)
    command = without_rights(FLYTE, "run", f"{flyte.project}/tasks.py", "hello")
    done = subprocess.run(
        command, cwd=flyte.home, env=env, capture_output=True, text=True, check=False
    )
    place.chmod(before)
    assert (
        done.returncode in (2, 3)
        and done.stdout == ""
        and "error: " in done.stderr
        and "flyte_build/" not in done.stderr
    ), done.stderr
    assert len(done.stderr.splitlines()) > 1 or what == "folder", "no word of what to do"
    assert flyte("run", "tasks.py", "hello").stdout == "Hello, World!\n"


@as_root
def test_a_read_only_home_is_named(flyte: Shell) -> None:
    """The error about a read-only home names the variable that sets another."""
    with mounted(flyte.home, "size=1m,ro"):
        assert (
            "read-only" in (said := flyte("run", "tasks.py", "hello", exit_code=3).stderr)
            and "FLYTE_HOME" in said
        )


@as_root
@pytest.mark.parametrize("size", ["8k", "64k", "120k", "160k", "200k", "260k", "320k", "400k"])
def test_a_full_disk_is_named_whenever_it_is_met(flyte: Shell, size: str) -> None:
    """A full disk is reported at any step, and with more space the command works.

    It may fill up while the store is created, or during preparation or the run.
    """
    with mounted(flyte.home, f"size={size}"):
        done = subprocess.run(
            [FLYTE, "run", "tasks.py", "hello"],
            cwd=flyte.project,
            env=flyte.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "flyte_build/" not in done.stderr, done.stderr
        assert done.returncode == 0 or "full" in done.stderr, done.stderr
        subprocess.run(["mount", "-o", "remount,size=20m", flyte.home], check=True)
        assert flyte("run", "tasks.py", "hello").stdout == "Hello, World!\n"


@as_root
def test_a_task_that_fills_the_disk_fails_with_that_reason(flyte: Shell) -> None:
    """A task that fills the disk, by its output or in a file, fails with that reason."""
    (flyte.project / "fills.py").write_text(
        "import flyte\nenv = flyte.TaskEnvironment(name='fills')\n@env.task\ndef prints() ->"
        " None:\n    for _ in range(100):\n        print('x' * 1_000_000)\n@env.task\ndef writes()"
        " -> None:\n    with open('big', 'wb', 0) as file:\n        for _ in range(100):\n         "
        "   file.write(bytes(1_000_000))\n"
    )
    for task in ("prints", "writes"):
        with mounted(flyte.home, "size=20m"):
            assert "disk is full" in flyte("run", "fills.py", task, exit_code=3).stderr
            subprocess.run(["mount", "-o", "remount,size=60m", flyte.home], check=True)
            assert flyte.last_run()["phase"] == "failed"
