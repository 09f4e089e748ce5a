"""Tasks that call tasks: each call is an action in a process of its own, recorded and retried."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.command import Shell, wait_for_no_sleepers

TREE = """
import asyncio, functools, os, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, NamedTuple
import flyte

other = flyte.TaskEnvironment(name="other", env_vars={"COLOUR": "red"})
env = flyte.TaskEnvironment(name="tree", depends_on=[other])

@dataclass
class Point:
    x: int
    y: int = 2

class Pair(NamedTuple):
    first: int
    second: str

class Odd(ValueError):
    def __init__(self, number, why):
        super().__init__(f"{number} is odd: {why}")
        self.number = number

def note(path, text):
    with open(path, "a") as file:
        file.write(text + "\\n")

@env.task
async def square(x: int) -> int:
    print("squaring", x)
    return x * x

@env.task
def double(x: int, times: int = 1) -> int:
    return 2 * x * times

@other.task
def colour() -> str:
    return os.environ["COLOUR"]

@env.task
def moves(point: Point) -> Pair:
    return Pair(point.x + 1, str(point.y))

@env.task
async def gathers(n: int) -> int:
    return sum(await asyncio.gather(*[square(i) for i in range(n)]))

@env.task
def serial(n: int) -> int:
    return sum(double(i, times=2) for i in range(n)) + double(1)

@env.task
async def mixes() -> str:
    pair = await moves.aio(Point(1))
    red = await colour.aio()
    return f"{pair.first} {pair.second} {type(pair).__name__} {red} {await double.aio(4)}"

@env.task
def threads() -> list[int]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(double, range(4)))

@env.task
def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)

@env.task
def odd(number: int) -> int:
    raise Odd(number, "so it is")

@env.task
def both() -> str:
    try:
        odd(7)
    except ValueError as error:
        assert isinstance(error, Odd) and isinstance(error, flyte.errors.RuntimeUserError)
        return f"{error} / {error.number} / {error.code}"
    return "nothing was raised"

@env.task
def uncaught() -> int:
    return odd(7)

@env.task
async def grouped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(odd.aio(9))

@env.task
def coded() -> str:
    try:
        raises_code()
    except flyte.errors.CustomError as error:
        return f"{error.code}: {error}"
    return "nothing was raised"

@env.task
def raises_code() -> None:
    raise flyte.errors.CustomError("TOO_HOT", "it melts")

@env.task
def counts(path: str, fails: bool) -> int:
    note(path, f"{fails}")
    if fails and open(path).read().count("True") < 2:
        raise RuntimeError("again")
    return 1

@env.task(retries=1)
def retried(path: str) -> int:
    return counts(path, False) + counts(path, True)

@env.task(retries=2)
def flaky(path: str) -> int:
    note(path, "try")
    if open(path).read().count("try") < 3:
        raise RuntimeError("again")
    return 3

@env.task
def calls_flaky(path: str) -> int:
    return flaky(path)

@env.task(retries=1)
def killed_twice(path: str) -> int:
    note(path, "try")
    if open(path).read().count("try") < 3:
        os.kill(os.getpid(), 9)
    return 3

@env.task
def calls_killed(path: str) -> int:
    return killed_twice(path)

@env.task(timeout=0.5)
def slow() -> None:
    subprocess.Popen(["sleep", "987654"])
    time.sleep(600)

@env.task
def calls_slow() -> str:
    try:
        slow()
    except flyte.errors.TaskTimeoutError as error:
        return type(error).__name__
    return "nothing was raised"

@env.task
async def sleeps(marker: str) -> None:
    subprocess.Popen(["sleep", "987654"])
    note(marker, "started")
    await asyncio.sleep(600)

@env.task
async def waits_for_all(folder: str, n: int) -> None:
    await asyncio.gather(*[sleeps(f"{folder}/{i}") for i in range(n)])

@env.task
async def cancels(marker: str) -> str:
    async def started():
        while not os.path.exists(marker):
            await asyncio.sleep(0.01)
    waiting = asyncio.ensure_future(sleeps(marker))
    await started()
    waiting.cancel()
    try:
        await waiting
    except asyncio.CancelledError:
        return "cancelled"
    return "it went on"

@env.task
async def forgets(marker: str) -> int:
    asyncio.ensure_future(sleeps(marker))
    while not os.path.exists(marker):
        await asyncio.sleep(0.01)
    return 5

@env.task
async def blocks() -> int:
    return double(1)

@env.task
def maps(n: int) -> list[str]:
    return [str(each) for each in flyte.map(picky, range(n), [10] * n)]

@env.task
def picky(x: int, y: int) -> int:
    if x == 1:
        raise Odd(x, "picky")
    return x + y

@env.task
async def maps_later(n: int) -> list[int]:
    task = functools.partial(double, times=3)
    return [each async for each in flyte.map.aio(task, range(n), group_name="g", concurrency=2)]

@env.task
def strict(n: int) -> list[int]:
    return list(flyte.map(picky, range(n), range(n), return_exceptions=False))

@env.task
def knows() -> list[str]:
    own = flyte.ctx()
    with flyte.group("colours"), flyte.custom_context(shade="dark"):
        child = told()
    return [own.action.name, str(bool(own)), *child, str(flyte.get_custom_context())]

@env.task
def told() -> list[str]:
    own = flyte.ctx()
    return [str(own.attempt_number), own.custom_context["shade"], deeper()]

@env.task
def deeper() -> str:
    return flyte.get_custom_context()["shade"]

@env.task
def applies(function: Callable[[int], int], x: int) -> int:
    return function(x)

def triple(x: int) -> int:
    return 3 * x

@env.task
def passes_functions() -> list[int]:
    return [applies(triple, 2), applies(double, 2)]

@env.task(timeout=0.3)
def naps() -> None:
    time.sleep(60)

@env.task(timeout=flyte.Timeout(deadline=0.5), retries=5)
async def naps_later() -> None:
    await asyncio.sleep(60)

@env.task
async def in_time() -> list[str]:
    found = []
    for call in (lambda: naps_later(), lambda: in_thread.aio()):
        try:
            await call()
        except flyte.errors.TaskTimeoutError as error:
            found.append(type(error).__name__)
    return found

@env.task
def in_thread() -> None:
    raise flyte.errors.MaxRuntimeExceededError("too late")

@env.task
def naps_here() -> str:
    try:
        naps()
    except flyte.errors.MaxRuntimeExceededError as error:
        return error.code
    return "nothing was raised"

@env.task(max_inline_io_bytes=1000)
def small(text: str, times: int) -> str:
    return text * times

@env.task
def too_large(size: int, times: int) -> str:
    try:
        return small("x" * size, times)[:10]
    except flyte.errors.InlineIOMaxBytesBreached as error:
        return str(error)

huge = flyte.TaskEnvironment(name="huge", resources=flyte.Resources(cpu=1000, memory="9Ti"))
gpu = flyte.TaskEnvironment(name="gpu", resources=flyte.Resources(gpu=99))

@huge.task
def alone() -> int:
    return 1

one_gpu = flyte.TaskEnvironment(name="one-gpu", resources=flyte.Resources(cpu=0.1, gpu=1))

@one_gpu.task
def sees(folder: str, together: int) -> str:
    own = os.environ["CUDA_VISIBLE_DEVICES"]
    note(f"{folder}/begun", own)
    while len(open(f"{folder}/begun").readlines()) % together:
        time.sleep(0.01)
    return own

@env.task
async def gpus_at_once(folder: str) -> list[str]:
    found = await asyncio.gather(*[sees.aio(folder, 2) for _ in range(4)])
    both = sees.override(resources=flyte.Resources(cpu=0.1, gpu=2))
    return [*found, await both.aio(folder, 1)]

@gpu.task
def on_gpu() -> int:
    return 1

@env.task
async def calls_alone(folder: str) -> int:
    results = await asyncio.gather(alone.aio(), alone.aio(), busy(folder, 1))
    return sum(results)

@env.task
def calls_gpu() -> int:
    return on_gpu()

@env.task
def local_task() -> int:
    @env.task
    def inner() -> int:
        return 1
    return inner()

@env.task
def wrong_type() -> int:
    return double("one")

@env.task
def unreachable() -> int:
    import hidden
    return hidden.answer()

@env.task
async def maps_in_a_loop(n: int) -> list[int]:
    return list(flyte.map(square, range(n)))

@env.task
def attempts() -> str:
    if flyte.ctx().attempt_number < 2:
        raise ValueError
    return os.environ["FLYTE_ATTEMPT_NUMBER"]

@env.task
def leaves_a_sleeper() -> int:
    if not flyte.ctx().attempt_number:
        subprocess.Popen(["sleep", "987654"], start_new_session=True)
        os.kill(os.getpid(), 9)
    return 1

@env.task
def calls_the_killed() -> int:
    return leaves_a_sleeper()

@env.task
def calls_attempts() -> str:
    return attempts.override(retries=2)() + os.environ["FLYTE_ATTEMPT_NUMBER"]

@env.task
async def pauses(seconds: float) -> int:
    first = await square(1)
    await asyncio.sleep(seconds)
    return first + await square(2)

@env.task
async def overlaps(folder: str, n: int) -> int:
    counts = await asyncio.gather(*[busy(folder, i) for i in range(n)])
    return max(counts)

@env.task
async def busy(folder: str, i: int) -> int:
    mine = f"{folder}/{i}"
    open(mine, "w").close()
    count = len(os.listdir(folder))
    await asyncio.sleep(0.1)
    os.unlink(mine)
    return count
"""


@pytest.fixture
def tree(flyte: Shell) -> Shell:
    """A project with tasks that call tasks."""
    (flyte.project / "tree.py").write_text(TREE)
    return flyte


PLACES = pytest.mark.parametrize("options", [(), ("--local",)], ids=["prepared", "local"])


def run(
    tree: Shell, task: str, *inputs: str, exit_code: int = 0, options: tuple[str, ...] = ()
) -> Any:
    """Run a task, and return the document of the command."""
    return tree.json("run", *options, "tree.py", task, *inputs, exit_code=exit_code)


def actions(tree: Shell, name: str) -> list[dict[str, Any]]:
    """Return the actions of a run."""
    found: list[dict[str, Any]] = tree.json("get", "action", name)
    return found


def ended(tree: Shell) -> None:
    """Check that all actions of the last run have ended, and have left no process."""
    name = tree.last_run()["name"]
    assert all(each["ended"] for each in actions(tree, name))
    wait_for_no_sleepers()


@PLACES
@pytest.mark.parametrize(
    ("task", "inputs", "output", "count"),
    [
        ("gathers", ["--n", "4"], 14, 5),
        ("serial", ["--n", "3"], 14, 5),
        ("mixes", [], "2 2 Pair red 8", 4),
        ("threads", [], [0, 2, 4, 6], 5),
        ("fib", ["--n", "4"], 3, 9),
        ("maps_later", ["--n", "3"], [0, 6, 12], 4),
        ("passes_functions", [], [6, 4], 4),
        ("knows", [], ["a0", "True", "0", "dark", "dark", "{}"], 3),
    ],
)
def test_each_call_is_an_action(
    tree: Shell,
    options: tuple[str, ...],
    task: str,
    inputs: list[str],
    output: object,
    count: int,
) -> None:
    """The result is that of plain calls, and each call is in the history, below its caller."""
    done = run(tree, task, *inputs, options=options)
    assert done["outputs"] == {"o0": output}
    found = actions(tree, done["run"])
    assert len(found) == count and {each["phase"] for each in found} == {"succeeded"}
    names = [each["name"] for each in found]
    assert names[0] == "a0" and len(set(names)) == count
    assert all(each["parent"] in names for each in found[1:])
    assert {each["engine"] for each in found[1:]} == {"local" if options else "process"}


def test_deployed_tasks_call_deployed_tasks(tree: Shell) -> None:
    """Calls of a deployed task are of the same version, also those of other environments."""
    tree("deploy", "--version", "v1", "tree.py", "env")
    (tree.project / "tree.py").unlink()
    done = tree.json("run", "deployed-task", "tree.mixes:v1")
    assert done["outputs"] == {"o0": "2 2 Pair red 8"}
    assert [each["task"] for each in actions(tree, done["run"])] == [
        *("tree.mixes", "tree.moves", "other.colour", "tree.double"),
    ]


def test_the_same_program_makes_the_same_actions(tree: Shell) -> None:
    """Ids depend on calls alone, and equal calls are different actions."""
    one, other = (
        run(tree, "serial", "--n", "2", options=options)["run"] for options in ((), ("--local",))
    )
    first = [(each["name"], each["task"]) for each in actions(tree, one)]
    assert first == [(each["name"], each["task"]) for each in actions(tree, other)]
    (tree.project / "twice.py").write_text(
        "from tree import env, double\n@env.task\ndef twice() -> int:\n    return double(1) + double(1)\n"
    )
    done = tree.json("run", "twice.py", "twice")
    assert (
        done["outputs"] == {"o0": 4} and len({a["name"] for a in actions(tree, done["run"])}) == 3
    )


def test_an_action_has_its_inputs_its_result_and_its_log(tree: Shell) -> None:
    """An action that prints nothing leaves no file; one that prints has a log of its own."""
    done = run(tree, "gathers", "--n", "2")
    (_, *found) = actions(tree, done["run"])
    by_input = {
        tree.json("get", "io", done["run"], each["name"])["inputs"]["x"]: each for each in found
    }
    assert sorted(by_input) == [0, 1]
    name = by_input[1]["name"]
    assert tree.json("get", "io", done["run"], name)["outputs"] == {"o0": 1}
    assert tree("get", "logs", done["run"], name).stdout == "squaring 1\n"
    assert tree("get", "logs", done["run"], name[:6]).stdout == "squaring 1\n"
    assert tree("get", "logs", done["run"]).stdout == ""
    quiet = run(tree, "serial", "--n", "2")
    folder = Path(quiet["url"].removeprefix("file://"))
    assert not (folder / "actions").exists() or not list((folder / "actions").iterdir())
    assert not (folder / "api").exists()
    child = actions(tree, quiet["run"])[1]["name"]
    assert "has printed nothing" in tree("get", "logs", quiet["run"], child, exit_code=4).stderr


def test_output_of_children_begins_with_their_names(tree: Shell) -> None:
    done = tree("run", "tree.py", "gathers", "--n", "2")
    lines = sorted(line for line in done.stdout.splitlines() if "squaring" in line)
    assert [line.split("]")[1] for line in lines] == [" squaring 0", " squaring 1"] or [
        line.split("]")[1] for line in lines
    ] == [" squaring 1", " squaring 0"]
    assert all(line.startswith("[square a") for line in lines)


@pytest.mark.parametrize(
    ("task", "options", "output"),
    [
        ("both", (), "7 is odd: so it is / 7 / Odd"),
        ("both", ("--local",), "7 is odd: so it is / 7 / Odd"),
        ("coded", (), "TOO_HOT: it melts"),
        ("coded", ("--local",), "TOO_HOT: it melts"),
        ("calls_slow", (), "MaxRuntimeExceededError"),
    ],
)
def test_an_error_has_the_face_that_its_caller_expects(
    tree: Shell, task: str, options: tuple[str, ...], output: str
) -> None:
    """A child's exception is of its own class, with its attributes, and one of flyte.errors."""
    assert run(tree, task, options=options)["outputs"] == {"o0": output}
    ended(tree)


def test_an_error_that_nobody_catches_shows_both_tracebacks(tree: Shell) -> None:
    """The child's own frames come first; the run's error is the child's."""
    done = run(tree, "uncaught", exit_code=1)
    error = done["error"]
    assert (error["type"], error["message"]) == ("Odd", "7 is odd: so it is")
    assert error["traceback"].index("in odd\n") < error["traceback"].index("in uncaught\n")
    assert "flyte_build/" not in error["traceback"].replace("flyte_build.runner", "")
    assert error.keys() == {"type", "message", "kind", "traceback"}
    group = run(tree, "grouped", exit_code=1)["error"]
    assert group["type"] == "ExceptionGroup" and "9 is odd: so it is" in group["traceback"]


def test_a_retry_takes_over_what_succeeded(tree: Shell, tmp_path: Path) -> None:
    """The next attempt of a parent runs the failed child anew, and the other one not again."""
    done = run(tree, "retried", "--path", str(tmp_path / "calls"))
    assert done["outputs"] == {"o0": 2}
    assert sorted((tmp_path / "calls").read_text().split()) == ["False", "True", "True"]
    assert [each["attempts"] for each in actions(tree, done["run"])] == [2, 1, 2]


@pytest.mark.parametrize(
    ("task", "options"), [("calls_flaky", ()), ("calls_killed", ()), ("calls_flaky", ("--local",))]
)
def test_children_are_retried(
    tree: Shell, tmp_path: Path, task: str, options: tuple[str, ...]
) -> None:
    """A child has the retries of its task; a lost worker uses up none of them."""
    done = run(tree, task, "--path", str(tmp_path / "tries"), options=options)
    assert done["outputs"] == {"o0": 3}
    assert [each["attempts"] for each in actions(tree, done["run"])] == [1, 3]


def test_a_cancelled_call_ends_its_action(tree: Shell, tmp_path: Path) -> None:
    """Cancelling the coroutine that waits for a child aborts the child with its processes."""
    done = run(tree, "cancels", "--marker", str(tmp_path / "marker"))
    assert done["outputs"] == {"o0": "cancelled"}
    assert [each["phase"] for each in actions(tree, done["run"])] == ["succeeded", "aborted"]
    ended(tree)


def test_a_parent_that_ends_ends_its_children(tree: Shell, tmp_path: Path) -> None:
    done = run(tree, "forgets", "--marker", str(tmp_path / "marker"))
    assert done["outputs"] == {"o0": 5}
    child = actions(tree, done["run"])[1]
    # Ending its loop cancels the coroutine, which may abort the child first.
    assert child["phase"] == "aborted" and (
        "a0 ended before it" in child["why"] or "does not wait for it" in child["why"]
    )
    ended(tree)


@PLACES
def test_a_map_gives_errors_in_their_place(tree: Shell, options: tuple[str, ...]) -> None:
    """Results of a map are in order; errors are among them, or are raised and end the rest."""
    done = run(tree, "maps", "--n", "3", options=options)
    assert done["outputs"] == {"o0": ["10", "1 is odd: picky", "12"]}
    found = actions(tree, done["run"])
    assert [each["group"] for each in found] == ["", *["tree.picky_map"] * 3]
    error = run(tree, "strict", "--n", "40", exit_code=1, options=options)["error"]
    assert error["type"] == "Odd"
    ended(tree)


def test_calls_of_a_group_are_recorded_with_its_name(tree: Shell) -> None:
    found = actions(tree, run(tree, "knows")["run"])
    assert [each["group"] for each in found] == ["", "colours", ""]


def start_many(tree: Shell, folder: Path) -> subprocess.Popen[str]:
    """Start a run whose children all sleep, and wait until two of them do."""
    folder.mkdir()
    command = tree.start("run", "tree.py", "waits_for_all", "--folder", str(folder), "--n", "4")
    while len(list(folder.iterdir())) < 2:
        assert command.poll() is None
        time.sleep(0.02)
    return command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_all_actions(tree: Shell, tmp_path: Path, number: int) -> None:
    """Ctrl-C and SIGTERM reach every child, also those that wait for a place."""
    command = start_many(tree, tmp_path / "marks")
    command.send_signal(number)
    assert command.wait(30) == (130 if number == signal.SIGINT else 5)
    command.communicate()
    name = tree.last_run()["name"]
    assert {each["phase"] for each in actions(tree, name)} == {"aborted"}
    ended(tree)


def test_a_killed_command_leaves_nothing_running(tree: Shell, tmp_path: Path) -> None:
    """After kill -9 of the command its workers end, and the next command ends the actions."""
    command = start_many(tree, tmp_path / "marks")
    command.kill()
    command.communicate()
    name = tree.last_run()["name"]
    found = actions(tree, name)
    assert found[0]["phase"] == "failed" and len(found) == 5
    folder = Path(tree.last_run()["url"].removeprefix("file://"))
    assert not (folder / "api").exists() and not list(folder.rglob("action.json"))[1:]
    assert {each["phase"] for each in found[1:]} == {"aborted"}
    ended(tree)


def test_a_killed_worker_leaves_no_processes(tree: Shell) -> None:
    """Its processes end, also in sessions of their own, before the next attempt."""
    assert run(tree, "calls_the_killed")["outputs"] == {"o0": 1}
    wait_for_no_sleepers()


@PLACES
def test_a_map_may_block_a_loop(tree: Shell, options: tuple[str, ...]) -> None:
    """In a coroutine, the sync form of a map calls async tasks outside of the loop that it blocks."""
    done = run(tree, "maps_in_a_loop", "--n", "4", options=options)
    assert done["outputs"] == {"o0": [0, 1, 4, 9]}


@PLACES
def test_a_variable_counts_attempts(tree: Shell, options: tuple[str, ...]) -> None:
    """`FLYTE_ATTEMPT_NUMBER` counts from 0, for each action by itself."""
    assert run(tree, "calls_attempts", options=options)["outputs"] == {"o0": "20"}


def test_calls_may_be_far_apart(tree: Shell) -> None:
    """A connection that was idle for longer than servers keep one is opened again."""
    assert run(tree, "pauses", "--seconds", "6")["outputs"] == {"o0": 5}


def test_actions_share_the_processors(tree: Shell, tmp_path: Path) -> None:
    """No more actions run at once than there are processors; parents that wait hold none."""
    (tmp_path / "marks").mkdir()
    done = run(tree, "overlaps", "--folder", str(tmp_path / "marks"), "--n", "6")
    assert 1 <= done["outputs"]["o0"] <= (os.cpu_count() or 1)


@PLACES
def test_children_have_their_timeouts(tree: Shell, options: tuple[str, ...]) -> None:
    """Limits of an attempt, and deadlines of all attempts, act also in the calling process."""
    assert run(tree, "naps_here", options=options)["outputs"] == {"o0": "MaxRuntimeExceededError"}
    done = run(tree, "in_time", options=options)
    assert done["outputs"] == {"o0": ["DeadlineExceededError", "MaxRuntimeExceededError"]}
    assert [each["phase"] for each in actions(tree, done["run"])][1] == "timed_out"
    assert run(tree, "naps", options=options, exit_code=6)["phase"] == "timed_out"


@pytest.mark.parametrize(
    ("size", "times", "text"),
    [(10, 1, "x" * 10), (2000, 1, "The inputs of tree.small take"), (10, 200, "The outputs of")],
)
def test_values_between_tasks_have_a_limit(tree: Shell, size: int, times: int, text: str) -> None:
    """Inputs and outputs beyond `max_inline_io_bytes` are an error in the caller."""
    done = run(tree, "too_large", "--size", str(size), "--times", str(times))
    assert done["outputs"]["o0"].startswith(text)


def test_a_task_beyond_the_machine_runs_alone(tree: Shell, tmp_path: Path) -> None:
    """It is noted once; GPUs that are not there are an error, before anything runs."""
    (tmp_path / "marks").mkdir()
    done = tree("run", "tree.py", "calls_alone", "--folder", str(tmp_path / "marks"))
    assert done.stdout.splitlines()[-1] == "3"
    assert done.stderr.count("huge.alone declares 1000 processors") == 1
    assert "of memory" in done.stderr and "it runs alone" in done.stderr
    runs = len(tree.json("get", "run"))
    refused = tree("run", "tree.py", "on_gpu", exit_code=3).stderr
    (tree.project / "ahead.py").write_text(
        "import flyte, tree\nenv = flyte.TaskEnvironment(name='ahead', depends_on=[tree.gpu])\n"
        "@env.task\ndef cheap() -> int:\n    return 1\n"
    )
    ahead = tree("run", "ahead.py", "cheap", exit_code=3).stderr
    assert "gpu.on_gpu needs 99 GPUs" in ahead
    assert "gpu.on_gpu needs 99 GPUs" in refused and len(tree.json("get", "run")) == runs
    error = run(tree, "calls_gpu", exit_code=1)["error"]
    assert error["type"] == "PreparationError" and "99 GPUs" in error["message"]
    assert run(tree, "on_gpu", options=("--local",))["outputs"] == {"o0": 1}


def test_each_action_has_gpus_of_its_own(project: Path, tmp_path: Path) -> None:
    """Actions that run together see other GPUs, and only those that the command may use."""
    tree = Shell(project, tmp_path / "home", {"CUDA_VISIBLE_DEVICES": "3,GPU-ab,-1,5"})
    (project / "tree.py").write_text(TREE)
    (tmp_path / "marks").mkdir()
    found = run(tree, "gpus_at_once", "--folder", str(tmp_path / "marks"))["outputs"]["o0"]
    assert sorted(found[:2]) == sorted(found[2:4]) == ["3", "GPU-ab"]
    assert sorted(found[4].split(",")) == ["3", "GPU-ab"]
    refused = tree("run", "tree.py", "on_gpu", exit_code=3).stderr
    assert "This machine has 2." in refused


@pytest.mark.parametrize(
    ("task", "kind", "text"),
    [
        ("local_task", "UsageError", "declared inside a function"),
        ("wrong_type", "InputError", "The input 'x' cannot be 'one'"),
        ("blocks", "SyncTaskCallInAsyncContextError", "await double.aio(...)"),
    ],
)
def test_a_call_that_cannot_be_made_fails_in_its_caller(
    tree: Shell, task: str, kind: str, text: str
) -> None:
    error = run(tree, task, exit_code=1)["error"]
    assert error["type"] == kind and text in json.dumps(error)
    assert f"in {task}\n" in error["traceback"]


def test_a_worker_with_another_token_is_refused(tree: Shell, tmp_path: Path) -> None:
    """The controller refuses requests without the run's token."""
    import http.client
    import socket

    command = start_many(tree, tmp_path / "marks")
    try:
        folder = Path(tree.last_run()["url"].removeprefix("file://"))
        os.chdir(folder / "api")
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect("socket")
        connection.request(
            "POST", f"/api/v1/runs/{folder.name}/actions/", b"[]", {"Authorization": "Bearer x"}
        )
        answer = connection.getresponse()
        assert answer.status == 401 and b"token" in answer.read()
        assert (folder / "api/socket").stat().st_mode & 0o777 == 0o600
        connection.close()
    finally:
        os.chdir("/")
        command.send_signal(signal.SIGTERM)
        command.communicate(timeout=30)
    assert not [p for p in psutil.process_iter(["pid"]) if p.pid == command.pid]
