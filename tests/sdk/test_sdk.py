"""Running tasks from Python."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap

import pytest

from tests.support.command import Shell


def test_a_script_prepares_and_runs(flyte: Shell) -> None:
    """`python my_example.py` works with and without `flyte.init`, and in local mode."""
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
        [sys.executable, "script.py"],
        cwd=flyte.project,
        env=flyte.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "Point(x=1)",
        "Result: Point(x=3) True succeeded True",
        "{'o0': Point(x=6)}",
        "The input 'by' cannot be 'x'",
    ]
    assert len(flyte.json("get", "run")) == 3


TASKS = """
import asyncio, datetime, os, threading, time
from pathlib import Path
import flyte
from dataclasses import dataclass

@dataclass
class Point:
    x: int

env = flyte.TaskEnvironment(name="sdk")

@env.task
def move(point: Point, by: datetime.timedelta = datetime.timedelta(seconds=1)) -> tuple[Point, datetime.timedelta]:
    print("moving")
    return Point(point.x + 1), by

@env.task
async def fails() -> int:
    raise ValueError("no")

@env.task
def team() -> str:
    return flyte.get_custom_context()["team"]

@env.task
def where() -> int:
    return os.getpid()

@env.task
def variable() -> str:
    return os.environ.get("SET", "unset")

@env.task
def waits() -> None:
    print("started", flush=True)
    time.sleep(600)
"""


def python(flyte: Shell, code: str) -> list[str]:
    """Run a file that begins with the tasks, and return the lines that it prints."""
    (flyte.project / "script.py").write_text(
        f"{TASKS}\nif __name__ == '__main__':\n{textwrap.indent(textwrap.dedent(code), '    ')}\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=flyte.project,
        env=flyte.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("mode", ["local", "remote"])
def test_a_run_says_all_of_itself(flyte: Shell, mode: str) -> None:
    """A run has the same attributes in this process and in a worker, with typed values."""
    code = f"""
    context = flyte.with_runcontext(mode="{mode}", name="one", labels={{"team": "blue"}})
    run = context.run(move, Point(1), by=datetime.timedelta(seconds=9))
    run.wait()
    print(run.name, run.phase, run.done(), run.url.startswith("file://"), run.action.name, run.action.task_name, run.first_failure())
    print(run.outputs(), run.outputs().named_outputs, run.outputs().to_dict() == run.outputs().named_outputs)
    print(run.inputs(), run.details().task, [row.phase for row in run.watch()])
    again = flyte.Run.get("one")
    print(type(again) is type(run), again.inputs(), again.outputs().to_dict())
    print([each.name for each in flyte.remote.Run.listall(in_phase="succeeded", task_name="sdk.move", with_labels={{"team": "blue"}})])
    print(list(flyte.Run.listall(in_phase=["failed"])), list(flyte.Run.listall(created_before=datetime.datetime(2000, 1, 1))))
    """
    lines = [line for line in python(flyte, code) if line != "moving"]
    nine = "datetime.timedelta(seconds=9)"
    assert lines == [
        "one succeeded True True a0 sdk.move None",
        f"(Point(x=2), {nine}) {{'o0': Point(x=2), 'o1': {nine}}} True",
        f"{{'point': Point(x=1), 'by': {nine}}} sdk.move ['succeeded']",
        "True {'point': {'x': 1}, 'by': 'PT9S'} {'o0': {'x': 2}, 'o1': 'PT9S'}",
        "['one']",
        "[] []",
    ]


def test_a_run_that_fails_says_why(flyte: Shell) -> None:
    """A failed run gives its reason when it is run, and when it is found again."""
    code = """
    flyte.init_from_config()
    try:
        flyte.with_runcontext(name="one").run(fails)
    except flyte.errors.RuntimeUserError as error:
        print(error.code, error.what)
    run = flyte.Run.get("one")
    print(run, run.phase, run.first_failure().phase)
    for call in (run.outputs, run.raise_for_status, lambda: flyte.Run.get("two"), run.abort, lambda: list(run.get_logs(attempt=7))):
        try:
            call()
        except flyte.errors.FlyteError as error:
            print(type(error).__name__, error.what)
    """
    assert python(flyte, code) == [
        "ValueError sdk.fails: ValueError: no",
        "failed: ValueError: no failed failed",
        "RuntimeUserError sdk.fails: ValueError: no",
        "RuntimeUserError sdk.fails: ValueError: no",
        "NotFound No run named 'two' in the history",
        "UsageError The run one has ended already (failed)",
        "NotFound The run one has no attempt 7",
    ]


def test_a_run_is_watched_and_aborted_while_it_goes_on(flyte: Shell) -> None:
    """Another process sees the logs and phases of a run as they come, and can abort it."""
    (flyte.project / "sdk.py").write_text(TASKS)
    command = flyte.start("run", "--name", "one", "sdk.py", "waits")
    code = """
    while not list(flyte.Run.listall(in_phase="running")):
        time.sleep(0.1)
    run = flyte.Run.get("one")
    print(run.done(), run, next(run.get_logs()))
    for row in run.watch():
        print(row.phase, row.why.endswith("enough"))
        if row.phase == "running":
            threading.Thread(target=run.abort, args=["enough"]).start()
    run.show_logs(max_lines=1)
    try:
        run.outputs()
    except flyte.errors.ActionAbortedError as error:
        print(error.what)
    """
    try:
        assert python(flyte, code) == [
            "False running started",
            "running False",
            "aborted True",
            "started",
            "The run one was aborted",
        ]
    finally:
        command.communicate(timeout=30)
    assert command.returncode == 5


def test_everything_that_waits_can_be_awaited(flyte: Shell) -> None:
    """Every blocking call can be awaited, and sync calls work inside of a loop."""
    code = """
    async def main() -> None:
        flyte.init_from_config()
        first, second = await asyncio.gather(flyte.run.aio(move, Point(1)), flyte.run.aio(move, Point(5)))
        print((await first.outputs.aio())[0], (await second.outputs.aio())[0], await first.inputs.aio())
        await first.wait.aio()
        print((await flyte.Run.get.aio(first.name)).phase, len([run async for run in flyte.Run.listall.aio()]))
        print([line async for line in first.get_logs.aio()], [row.phase async for row in first.watch.aio()])
        await first.show_logs.aio()
        local = flyte.with_runcontext(mode="local")
        for call in (lambda: local.run.aio(fails), lambda: asyncio.to_thread(local.run, fails)):
            try:
                await call()
            except flyte.errors.RuntimeUserError as error:
                print(error.code)
        try:
            local.run(fails)
        except flyte.errors.RuntimeUserError as error:
            print(error.code)
    asyncio.run(main())
    """
    lines = python(flyte, code)
    # Two runs at once may share a line.
    assert [rest for line in lines if (rest := re.sub("^(moving)+", "", line))] == [
        "Point(x=2) Point(x=6) {'point': Point(x=1), 'by': datetime.timedelta(seconds=1)}",
        "succeeded 2",
        "['moving'] ['succeeded']",
        "ValueError",
        "ValueError",
        "ValueError",
    ]
    assert "".join(lines).count("moving") == 4


def test_an_earlier_run_is_done_again(flyte: Shell) -> None:
    """An earlier run is repeated with other inputs as JSON values; an unknown one is refused."""
    code = """
    flyte.init_from_config()
    flyte.with_runcontext(name="one").run(move, Point(1))
    print(flyte.with_runcontext(labels={"a": "b"}).rerun("one", by="PT7S").outputs()[1])
    print(flyte.rerun("one").outputs()[1], flyte.rerun("one", recover=True).phase)
    print(asyncio.run(flyte.with_runcontext(name="two").rerun.aio("one")).name, len(list(flyte.Run.listall(with_labels={"a": "b"}))))
    for name, inputs in (("three", {}), ("one", {"other": 1}), ("one", {"point": 1})):
        try:
            flyte.with_runcontext().rerun(name, **inputs)
        except flyte.errors.FlyteError as error:
            print(error.what)
    """
    assert [line for line in python(flyte, code) if line != "moving"] == [
        "PT7S",
        "PT1S succeeded",
        "two 1",
        "No run named 'three' in the history",
        "The input 'other' does not exist",
        "The input 'point' cannot be 1",
    ]


def test_a_run_begins_with_a_custom_context(flyte: Shell) -> None:
    """It is passed to the task in either mode, and again when the run is done again."""
    code = """
    asyncio.run(flyte.init_from_config.aio())
    for context in (flyte.with_runcontext(custom_context={"team": "blue"}), flyte.with_runcontext("local", custom_context={"team": "red"})):
        run = context.run(team)
        print(run.outputs()[0])
    print(flyte.rerun(flyte.with_runcontext(custom_context={"team": "blue"}).run(team).name).outputs()[0])
    """
    assert python(flyte, code) == ["blue", "red", "blue"]


def test_a_bare_init_prepares_nothing(flyte: Shell) -> None:
    """After `flyte.init()` tasks run in the calling process, as before it; scripts never do."""
    code = """
    flyte.init(project="p")
    print(flyte.run(where).outputs()[0] == os.getpid(), flyte.current_project())
    asyncio.run(flyte.init.aio(endpoint="dns:///x"))
    print(flyte.run(where).outputs()[0] == os.getpid())
    Path("plain.py").write_text("import sys; print(sys.argv[1:])")
    print(flyte.run_python_script("plain.py", extra_args=["a b"]).phase)
    print(flyte.run(variable.override(env_vars={"SET": "over"})).outputs()[0])
    """
    assert python(flyte, code) == ["True p", "False", "['a b']", "succeeded", "over"]


def test_what_is_not_acted_on_is_said(flyte: Shell) -> None:
    """Ignored arguments are noted, except those that are None."""
    code = (
        f"{TASKS}\nflyte.init(endpoint='dns:///x', org=None)\nflyte.with_runcontext(mode='local',"
        " dry_run=True, queue=None)\n"
    )
    (flyte.project / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=flyte.project,
        env=flyte.environment,
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines() == [
        "note: flyte.init ignores: endpoint.",
        "note: flyte.with_runcontext ignores: dry_run.",
    ]
