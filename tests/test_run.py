"""`flyte run` and its kin, as a user types them: the installed command, real files, real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

FLYTE = os.path.join(os.path.dirname(sys.executable), "flyte")
TASKS = '''
import asyncio, os, subprocess, sys, time
import flyte

env = flyte.TaskEnvironment(name="t", env_vars={"FROM_ENV": "env", "BOTH": "env"})

@env.task
def hello(name: str = "World") -> str:
    """Greet somebody.

    Args:
        name: Who is greeted.
    """
    return f"Hello, {name}!"

@env.task
async def hello_async(name: str) -> str:
    await asyncio.sleep(0)
    return f"Hello, {await child(name)}!"

@env.task
async def child(name: str) -> str:
    return name.upper()

@env.task
def fails() -> None:
    print("before", flush=True)
    raise ValueError("no [good]")

@env.task
def ends(code: int) -> None:
    os._exit(code)

@env.task
def exits() -> None:
    sys.exit(3)

@env.task
def killed() -> None:
    os.kill(os.getpid(), 9)

@env.task
def recurses() -> int:
    return recurses.func() + 1

@env.task
def returns_wrong() -> int:
    return "one"

@env.task(timeout=0.3)
def slow() -> None:
    time.sleep(60)

@env.task
def for_ever() -> None:
    subprocess.Popen(["sleep", "987654"])
    subprocess.Popen(["sleep", "987654"], start_new_session=True)
    print("started", flush=True)
    time.sleep(600)

@env.task
def stubborn() -> None:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("started", flush=True)
    while True:
        time.sleep(600)

@env.task
def leaves_child() -> int:
    subprocess.Popen(["sleep", "987654"])
    return 1

@env.task
def closes() -> int:
    os.close(1)
    os.close(2)
    return 5

@env.task
def prints(size: int) -> int:
    line = b"x" * 99 + b"\\n"
    for _ in range(size // 100):
        os.write(1, line)
    return size

@env.task
def binary() -> None:
    os.write(1, bytes(range(256)) + b"\\x1b[31mred\\x1b[0m")

@env.task(retries=2)
def flaky(path: str) -> int:
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 3:
        raise RuntimeError("again")
    return os.path.getsize(path)

@env.task
def variables(names: list[str]) -> list[str]:
    return [os.environ.get(name, "-") for name in names]

@env.task
def places() -> dict[str, str]:
    open("out.txt", "w").write("x")
    return {"cwd": os.getcwd(), "file": os.path.abspath(__file__)}

@env.task
def vandal() -> str:
    with open(__file__, "a") as file:
        file.write("# changed")
    return "changed"

@env.task
def reads(path: str) -> str:
    return open(path).read()

@env.task
def dynamic(name: str) -> str:
    return __import__("importlib").import_module(name).VALUE
'''


@dataclass
class Shell:
    """Runs `flyte` in a project's folder, with a home of its own."""

    project: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FLYTE_HOME": str(self.home), "HOME": str(self.home)}

    def __call__(self, *args: str, exit_code: int = 0, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [FLYTE, *args],
            cwd=self.project,
            env={**self.environment, **(env or {})},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        assert done.returncode == exit_code, done.stdout + done.stderr
        assert "flyte_build" not in done.stderr, "a traceback of ours"
        return done

    def json(self, *args: str, exit_code: int = 0, env: dict[str, str] | None = None) -> Any:
        return json.loads(self("-of", "json", *args, exit_code=exit_code, env=env).stdout)

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [FLYTE, *args],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def last_run(self) -> dict[str, Any]:
        runs = self.json("get", "run", "--limit", "1")
        assert isinstance(runs[0], dict)
        return runs[0]


@pytest.fixture
def flyte(tmp_path: Path) -> Iterator[Shell]:
    """A project with a file of tasks."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "tasks.py").write_text(TASKS)
    yield Shell(project, tmp_path / "home")
    for folder, _, _ in os.walk(tmp_path / "home"):
        os.chmod(folder, 0o700)


def states(result: dict[str, Any]) -> dict[str, str]:
    return {node["kind"]: node["state"] for node in result["prepared"]}


def sleepers() -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["cmdline"] == ["sleep", "987654"] and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def wait_for_no_sleepers() -> None:
    psutil.wait_procs([psutil.Process(pid) for pid in sleepers() if psutil.pid_exists(pid)], timeout=10)
    assert sleepers() == []


def test_the_second_run_prepares_nothing(flyte: Shell) -> None:
    """Everything is looked up; no file is read, nothing is written to the store."""
    first = flyte.json("run", "tasks.py", "hello", "--name", "Ada")
    assert first["outputs"] == {"o0": "Hello, Ada!"} and first["phase"] == "succeeded" and first["error"] is None
    assert set(states(first).values()) == {"made"} and {"discovery", "tree", "bundle"} <= states(first).keys()
    second = flyte.json("run", "tasks.py", "hello")
    assert set(states(second).values()) == {"cached"}
    assert second["counters"]["files_read"] == second["counters"]["blobs_written"] == second["counters"]["requests"] == 0
    assert first["run"] != second["run"] and Path(second["url"].removeprefix("file://")).is_dir()


def test_results_go_to_standard_output_and_all_else_to_standard_error(flyte: Shell) -> None:
    """A script reads the result alone."""
    done = flyte("run", "tasks.py", "hello")
    assert done.stdout == "Hello, World!\n"
    assert "made" in done.stderr and "run" in done.stderr and "\x1b" not in done.stderr


def test_async_tasks_call_tasks(flyte: Shell) -> None:
    """The call of a task inside a run gives its result."""
    assert flyte.json("run", "tasks.py", "hello_async", "--name", "ada")["outputs"] == {"o0": "Hello, ADA!"}


def test_a_change_is_named(flyte: Shell) -> None:
    """`cache why` says what would be prepared and why, changes nothing, and the run then says the same."""
    flyte("run", "tasks.py", "hello")
    with open(flyte.project / "tasks.py", "a") as file:
        file.write("# more\n")
    for _ in range(2):
        nodes = {node["kind"]: node for node in flyte.json("cache", "why", "tasks.py", "hello")["nodes"]}
        assert {node["state"] for node in nodes.values()} == {"missing"}
        assert "tasks.py" in nodes["discovery"]["why"] and "tasks.py" in nodes["tree"]["why"]
    result = flyte.json("run", "tasks.py", "hello")
    assert states(result)["tree"] == "made" and "1 file changed: tasks.py" in str(result["prepared"])
    assert all(node["state"] == "cached" for node in flyte.json("cache", "why", "tasks.py")["nodes"])


def test_switching_back_and_forth_hits(flyte: Shell) -> None:
    """Both states of a file are remembered."""
    for text in (TASKS, TASKS + "# other\n"):
        (flyte.project / "tasks.py").write_text(text)
        flyte("run", "tasks.py", "hello")
    (flyte.project / "tasks.py").write_text(TASKS)
    assert set(states(flyte.json("run", "tasks.py", "hello")).values()) == {"cached"}


def test_no_cache_makes_all_anew(flyte: Shell) -> None:
    """And says that it was asked to."""
    flyte("run", "tasks.py", "hello")
    result = flyte.json("run", "--no-cache", "tasks.py", "hello")
    assert set(states(result).values()) == {"made"}


@pytest.mark.parametrize(
    ("task", "args", "exit_code", "kind", "text"),
    [
        ("fails", [], 1, "ValueError", "no [good]"),
        ("ends", ["--code", "0"], 1, "RuntimeUnknownError", "without a result"),
        ("ends", ["--code", "7"], 1, "RuntimeUnknownError", "exit code 7"),
        ("exits", [], 1, "SystemExit", "sys.exit(3)"),
        ("killed", [], 1, "OOMError", "memory"),
        ("recurses", [], 1, "RecursionError", "recursion"),
        ("returns_wrong", [], 1, "RuntimeDataValidationError", "int"),
        ("slow", [], 6, "TaskTimeoutError", "0.3 s"),
    ],
)
def test_a_task_that_does_not_succeed_says_why(flyte: Shell, task: str, args: list[str], exit_code: int, kind: str, text: str) -> None:
    """The phase is terminal, the reason is in the history, and the exit code tells."""
    result = flyte.json("run", "tasks.py", task, *args, exit_code=exit_code)
    assert result["error"]["type"] == kind and text in result["error"]["message"]
    assert flyte.last_run()["phase"] == result["phase"] == ("timed_out" if exit_code == 6 else "failed")
    assert text in flyte("run", "tasks.py", task, *args, exit_code=exit_code).stderr


def test_a_traceback_shows_the_users_code_alone(flyte: Shell) -> None:
    """It is printed once, is in the log, and names the project's path."""
    done = flyte("run", "tasks.py", "fails", exit_code=1)
    assert done.stderr.count('File "tasks.py", line') == 1 and "before" in done.stdout
    log = flyte("get", "logs", flyte.last_run()["name"]).stdout
    assert "before" in log and "ValueError: no [good]" in log


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 5), (signal.SIGKILL, -9)])
def test_a_signal_ends_the_task_and_its_children(flyte: Shell, number: int, exit_code: int) -> None:
    """Also those that have left its group; the run has ended in the history."""
    command = flyte.start("run", "tasks.py", "for_ever")
    assert command.stdout and command.stdout.readline() == "started\n"
    command.send_signal(number)
    _, errors = command.communicate(timeout=30)
    assert command.returncode == exit_code and "flyte_build" not in errors
    wait_for_no_sleepers()
    assert flyte.last_run()["phase"] == ("failed" if number == signal.SIGKILL else "aborted")


def test_asking_twice_ends_a_task_that_does_not_listen(flyte: Shell) -> None:
    """The second Ctrl-C has no patience."""
    command = flyte.start("run", "tasks.py", "stubborn")
    assert command.stdout and command.stdout.readline() == "started\n"
    command.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(0.5)
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=30)
    assert command.returncode == 130 and flyte.last_run()["phase"] == "aborted"


def test_what_a_task_leaves_behind_is_ended(flyte: Shell) -> None:
    """A child in its group does not outlive it, and does not hold the command."""
    assert flyte.json("run", "tasks.py", "leaves_child")["outputs"] == {"o0": 1}
    wait_for_no_sleepers()


def test_a_task_may_close_its_output(flyte: Shell) -> None:
    """Its result counts all the same."""
    assert flyte.json("run", "tasks.py", "closes")["outputs"] == {"o0": 5}


def test_a_long_log_takes_bounded_memory_and_is_whole(flyte: Shell) -> None:
    """64 MB are passed through and kept; the command stays small."""
    command = subprocess.run(
        [
            "/usr/bin/env",
            "bash",
            "-c",
            'ulimit -v 1500000; exec "$@" >/dev/null',
            "-",
            FLYTE,
            "run",
            "tasks.py",
            "prints",
            "--size",
            "64000000",
        ],
        cwd=flyte.project,
        env=flyte.environment,
        capture_output=True,
        check=False,
    )
    assert command.returncode == 0, command.stderr
    assert os.path.getsize(f"{flyte.last_run()['url'].removeprefix('file://')}/log") == 64_000_000


def test_binary_output_passes_through_as_it_is(flyte: Shell) -> None:
    """Byte for byte, in the terminal and in the log."""
    flyte("run", "tasks.py", "hello")
    expected = bytes(range(256)) + b"\x1b[31mred\x1b[0m"
    done = subprocess.run([FLYTE, "run", "tasks.py", "binary"], cwd=flyte.project, env=flyte.environment, capture_output=True, check=True)
    assert done.stdout == expected
    name = flyte.last_run()["name"]
    logs = subprocess.run([FLYTE, "get", "logs", name], cwd=flyte.project, env=flyte.environment, capture_output=True, check=True)
    assert logs.stdout == expected


def test_a_task_is_tried_again_as_often_as_it_says(flyte: Shell) -> None:
    """The history counts the attempts."""
    result = flyte.json("run", "tasks.py", "flaky", "--path", str(flyte.home / "count"))
    assert result["outputs"] == {"o0": 3}
    assert flyte.json("get", "run", result["run"])["actions"][0]["attempts"] == 3


def test_environment_variables_reach_the_task_and_no_file(flyte: Shell) -> None:
    """The command's beat the declaration's; no value is written anywhere."""
    args = ["--names", "FROM_ENV", "--names", "BOTH", "--names", "MINE", "--names", "HERE"]
    result = flyte.json("run", "-e", "BOTH=cli", "-e", "MINE=a=b", "tasks.py", "variables", *args, env={"HERE": "shell"})
    assert result["outputs"] == {"o0": ["env", "cli", "a=b", "shell"]}
    flyte("run", "-e", "MINE=geheim-" + "4711", "tasks.py", "hello", env={"TOKEN": "geheim-" + "4712"})
    for path in flyte.home.rglob("*"):
        if path.is_file():
            assert b"geheim-471" not in path.read_bytes(), path


def test_a_task_runs_from_the_bundle_in_a_fresh_folder(flyte: Shell) -> None:
    """Not from the working tree; what it writes is in the run's folder, never in the project or the bundle."""
    first, second = (flyte.json("run", "tasks.py", "places") for _ in range(2))
    assert first["outputs"]["o0"]["cwd"] != second["outputs"]["o0"]["cwd"]
    assert first["outputs"]["o0"]["file"] == second["outputs"]["o0"]["file"]
    assert "/extractions/" in first["outputs"]["o0"]["file"]
    assert not (flyte.project / "out.txt").exists() and not (flyte.project / "__pycache__").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="permissions keep everyone but root out")
def test_a_task_that_changes_the_bundle_changes_no_later_run(flyte: Shell) -> None:
    """The extraction is made again; the store was never touched."""
    assert flyte.json("run", "tasks.py", "vandal")["outputs"] == {"o0": "changed"}
    verified = flyte.json("cache", "verify")
    assert "tasks.py was changed" in verified["bad"][0]["what"] and verified["bad"][0]["repaired"]
    flyte("run", "tasks.py", "vandal")
    place = flyte.json("run", "tasks.py", "places")["outputs"]["o0"]["file"]
    assert Path(place).read_text() == TASKS


def test_what_is_missing_from_the_bundle_is_named_with_the_remedy(flyte: Shell) -> None:
    """A file that the project has, and a module that is imported by name; the remedy works."""
    (flyte.project / "data.txt").write_text("data")
    (flyte.project / "lazy.py").write_text("VALUE = 'lazy'\n")
    assert 'include=["data.txt"]' in flyte("run", "tasks.py", "reads", "--path", "data.txt", exit_code=1).stderr
    assert 'include=["lazy.py"]' in flyte("run", "tasks.py", "dynamic", "--name", "lazy", exit_code=1).stderr
    assert flyte("run", "--copy-style", "all", "tasks.py", "reads", "--path", "data.txt").stdout == "data\n"
    text = TASKS.replace('name="t",', 'name="t", include=["data.txt", "lazy.py"],')
    (flyte.project / "tasks.py").write_text(text)
    assert flyte("run", "tasks.py", "reads", "--path", "data.txt").stdout == "data\n"
    assert flyte("run", "tasks.py", "dynamic", "--name", "lazy").stdout == "lazy\n"


def test_the_working_tree_is_never_imported_even_through_pythonpath(flyte: Shell) -> None:
    """A module that is not in the bundle is refused, though Python could find it."""
    (flyte.project / "lazy.py").write_text("VALUE = 'lazy'\n")
    done = flyte("run", "tasks.py", "dynamic", "--name", "lazy", exit_code=1, env={"PYTHONPATH": str(flyte.project)})
    assert "not in the bundle" in done.stderr or "in the bundle" in done.stderr


def test_a_stale_pyc_is_never_run(flyte: Shell) -> None:
    """Same path, same size, same mtime: other content."""
    for value in ("one", "two"):
        (flyte.project / "tasks.py").write_text(TASKS.replace('"Hello, {name}!"', f'"{value}, {{name}}!"', 1))
        os.utime(flyte.project / "tasks.py", (0, 0))
        assert flyte("run", "tasks.py", "hello").stdout == f"{value}, World!\n"


def test_a_volatile_import_is_not_recorded_and_said(flyte: Shell) -> None:
    """A clock, a process, a socket: the import is done each time."""
    for line in ("import time; NOW = time.time()", "import subprocess; subprocess.run(['true'])", "import socket; socket.socket()"):
        (flyte.project / "tasks.py").write_text(line + "\n" + TASKS)
        for _ in range(2):
            result = flyte("-of", "json", "run", "tasks.py", "hello")
            assert states(json.loads(result.stdout))["discovery"] == "made" and "imported anew each time" in result.stderr


def test_deleting_the_cache_loses_no_run(flyte: Shell) -> None:
    """It costs time, nothing else."""
    first = flyte.json("run", "tasks.py", "hello")
    for folder, _, _ in os.walk(flyte.home / "cache"):
        os.chmod(folder, 0o700)
    shutil.rmtree(flyte.home / "cache")
    assert flyte.json("get", "run", first["run"])["phase"] == "succeeded"
    again = flyte.json("run", "tasks.py", "hello")
    assert [node["digest"] for node in again["prepared"]] == [node["digest"] for node in first["prepared"]]


def test_collecting_everything_leaves_a_store_that_works(flyte: Shell) -> None:
    """A dry run shows exactly what the real one removes."""
    flyte("run", "tasks.py", "hello")
    planned = flyte.json("cache", "gc", "--dry-run", "--keep", "0s")
    done = flyte.json("cache", "gc", "--keep", "0s")
    assert planned["removed"] == done["removed"] and done["bytes"] > 0 and done["kept"] == 0
    assert flyte.json("cache", "stats")["blobs"] == 0
    assert flyte("run", "tasks.py", "hello").stdout == "Hello, World!\n"


def test_collecting_beside_a_running_task_leaves_its_code(flyte: Shell) -> None:
    """The run holds a lease."""
    command = flyte.start("run", "tasks.py", "for_ever")
    assert command.stdout and command.stdout.readline() == "started\n"
    assert flyte.json("cache", "stats")["leases"] == 1
    flyte("cache", "gc", "--keep", "0s")
    code = list((flyte.home / "cache/v1/extractions").glob("*/code/tasks.py"))
    assert len(code) == 1
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=30)


def test_a_corrupt_store_heals_while_the_command_succeeds(flyte: Shell) -> None:
    """Every blob is bad, and the extraction is gone."""
    flyte("run", "tasks.py", "hello")
    for blob in (flyte.home / "cache/v1/blobs/sha256").iterdir():
        os.chmod(blob, 0o644)
        blob.write_bytes(b"broken")
    for folder, _, _ in os.walk(flyte.home / "cache/v1/extractions"):
        os.chmod(folder, 0o700)
    shutil.rmtree(flyte.home / "cache/v1/extractions")
    assert flyte("run", "tasks.py", "hello").stdout == "Hello, World!\n"


def test_twenty_commands_share_one_store(flyte: Shell) -> None:
    """All at once, on an empty store."""
    commands = [flyte.start("run", "tasks.py", "hello", "--name", str(number)) for number in range(20)]
    for number, command in enumerate(commands):
        output, errors = command.communicate(timeout=120)
        assert command.returncode == 0 and output == f"Hello, {number}!\n", errors
    assert len(flyte.json("get", "run")) == 20
    assert flyte.json("cache", "verify")["bad"] == []


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


def test_a_script_prepares_and_runs(flyte: Shell) -> None:
    """`python my_example.py`, initialised and not, and the local mode."""
    script = """
import flyte
from dataclasses import dataclass
@dataclass
class Point:
    x: int
env = flyte.TaskEnvironment(name="script")
@env.task
async def move(point: Point, by: int = 1) -> Point:
    return Point(point.x + by)
if __name__ == "__main__":
    print(flyte.run(move, Point(0)))
    flyte.init_from_config()
    run = flyte.run(move, point=Point(1), by=2)
    print(f"Result: {run}", run.url.startswith("file://"), run.phase, isinstance(run.outputs()[0], Point))
    print(flyte.with_runcontext(mode="local").run(move, Point(5)).outputs().to_dict())
    try:
        flyte.run(move, by="x", point=Point(1))
    except flyte.errors.InputError as error:
        print(error.what)
"""
    (flyte.project / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=flyte.project, env=flyte.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "Point(x=1)",
        "Result: Point(x=3) True succeeded True",
        "{'o0': Point(x=6)}",
        "The input 'by' cannot be 'x'",
    ]
    assert len(flyte.json("get", "run")) == 3


@pytest.mark.parametrize("layout", ["src", "package", "folder", "outside"])
def test_projects_of_every_layout_run(flyte: Shell, tmp_path: Path, layout: str) -> None:
    """A src layout, a dotted package with relative imports, a sub folder with a sibling, a file outside of the current folder."""
    task = "import flyte\n{imports}\nenv = flyte.TaskEnvironment(name='layout')\n@env.task\ndef job() -> str:\n    return {value}\n"
    root = flyte.project
    files = {
        "src": {
            "src/app/__init__.py": "",
            "src/app/lib.py": "V = 'src'",
            "src/app/jobs.py": task.format(imports="from app.lib import V", value="V"),
        },
        "package": {
            "a/__init__.py": "",
            "a/b/__init__.py": "",
            "a/lib.py": "V = 'package'",
            "a/b/jobs.py": task.format(imports="from ..lib import V", value="V"),
        },
        "folder": {
            "jobs/sibling.py": "V = 'folder'",
            "jobs/jobs.py": task.format(imports="", value="__import__('sibling').V") + "import sibling\n",
        },
        "outside": {
            "../other/pyproject.toml": "",
            "../other/lib.py": "V = 'outside'",
            "../other/x/jobs.py": task.format(imports="import lib", value="lib.V"),
        },
    }[layout]
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    file = next(path for path in files if path.endswith("jobs.py"))
    assert flyte("run", file, "job").stdout == f"{layout}\n"
    assert flyte("run", "--local", file, "job").stdout == f"{layout}\n"


def test_bundle_ls_agrees_with_run(flyte: Shell) -> None:
    """The same tree; what is out is named with the line that keeps it out; it fails wherever the run would."""
    (flyte.project / ".gitignore").write_text("*.log\n")
    (flyte.project / "x.log").write_text("log")
    listed = flyte.json("bundle", "ls", "--copy-style", "all", "tasks.py")
    result = flyte.json("run", "--copy-style", "all", "tasks.py", "hello")
    assert listed["digest"] == next(node["digest"] for node in result["prepared"] if node["kind"] == "tree")
    assert [entry["path"] for entry in listed["files"]] == [".gitignore", "tasks.py"]
    assert {"path": "x.log", "rule": ".gitignore:1: *.log"} in listed["excluded"]
    assert sum(pack["files"] for pack in listed["packs"]) == 2
    assert ".gitignore:1: *.log" in flyte("bundle", "ls", "--copy-style", "all", "--why", "x.log", "tasks.py").stdout
    (flyte.project / ".env").write_text("KEY=1")
    for command in (["bundle", "ls"], ["run"]):
        rest = ["hello"] if command == ["run"] else []
        assert ".env" in flyte(*command, "--copy-style", "all", "tasks.py", *rest, exit_code=3).stderr
    (flyte.project / "flyte.toml").write_text('[bundle]\nallow_secrets = [".env"]\n')
    flyte("run", "--copy-style", "all", "tasks.py", "hello")


def test_one_edited_file_remakes_one_pack(flyte: Shell) -> None:
    """Of a tree of many packs, and writes little."""
    for number in range(1500):
        path = flyte.project / f"p{number % 10}" / f"m{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(8000))
    flyte("run", "--copy-style", "all", "tasks.py", "hello")
    unchanged = flyte.json("run", "--copy-style", "all", "tasks.py", "hello")
    assert unchanged["counters"]["files_read"] == 0 and set(states(unchanged).values()) == {"cached"}
    (flyte.project / "p3/m3.py").write_bytes(os.urandom(8000))
    result = flyte.json("run", "--copy-style", "all", "tasks.py", "hello")
    packs = [node["state"] for node in result["prepared"] if node["kind"] == "pack"]
    assert packs.count("made") == 1 and len(packs) > 4
    assert result["counters"]["bytes_written"] < 4 << 20


@pytest.mark.parametrize("style", ["all", "loaded_modules"])
def test_an_edit_of_an_unused_file_keeps_discovery(flyte: Shell, style: str) -> None:
    """Early cutoff: what did not change is not made again."""
    (flyte.project / "other.py").write_text("x = 1\n")
    flyte("run", "--copy-style", style, "tasks.py", "hello")
    (flyte.project / "other.py").write_text("x = 2\n")
    result = states(flyte.json("run", "--copy-style", style, "tasks.py", "hello"))
    assert result["discovery"] == "cached" and result["tree"] == ("made" if style == "all" else "cached")
