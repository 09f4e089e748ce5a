"""Actions of runs from Python."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.command import Shell

TASKS = """
import asyncio, os, threading, time
import flyte

env = flyte.TaskEnvironment(name="sdk")

@env.task
def leaf(n: int) -> int:
    print("leaf", n, flush=True)
    if n == 2:
        raise ValueError("two")
    return 10 * n

@env.task
def maps(n: int) -> int:
    return len(list(flyte.map(leaf, range(n))))

@env.task
async def sleeps() -> None:
    print("asleep", flush=True)
    await asyncio.sleep(600)

@env.task
async def catches() -> str:
    try:
        await sleeps()
    except flyte.errors.ActionAbortedError as error:
        return str(error)
    return ""
"""


def python(flyte: Shell, code: str) -> list[str]:
    """Run a file that imports the tasks, and return the lines that it prints."""
    (flyte.project / "sdk.py").write_text(TASKS)
    (flyte.project / "script.py").write_text(
        "import asyncio, threading, time\nimport flyte\nimport flyte.remote\nfrom sdk import *\n"
        f"if __name__ == '__main__':\n{textwrap.indent(textwrap.dedent(code), '    ')}\n"
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


def test_the_actions_of_a_run_are_found_from_python(flyte: Shell) -> None:
    """Each action has its task, phase, inputs, outputs and log; errors are raised."""
    code = """
    flyte.init_from_config()
    run = flyte.with_runcontext(name="one").run(maps, 3)
    print("---")
    root = run.action
    print(root.name, root.task_name, root.phase, root.parent, root.attempts, root.inputs(), root.outputs()[0])
    leaves = list(flyte.remote.Action.listall("one", parent_name="a0"))
    print([(a.task_name, a.group, a.inputs()["n"], a.phase, a.done()) for a in leaves])
    print([a.name == f.name for a in leaves for f in [run.first_failure()]], run.first_failure().error_message)
    one = flyte.remote.Action.get(run_name="one", name=leaves[1].name[:7])
    print(one.name == leaves[1].name, one.run_name, one.parent, one.outputs().to_dict(), list(one.get_logs()))
    print(one.start_time.tzinfo, one.details().engine, [a.task_name for a in flyte.remote.Action.listall(for_run_name="one", in_phase="failed")])
    for call in (leaves[2].outputs, one.abort, lambda: flyte.remote.Action.get(run_name="one", name="a1x")):
        try:
            call()
        except flyte.errors.FlyteError as error:
            print(type(error).__name__, error.what.replace(one.name, "NAME"))

    async def main():
        await one.wait.aio()
        again = await flyte.remote.Action.get.aio(run_name="one", name=one.name)
        print(await again.inputs.aio(), (await again.outputs.aio())[0], [line async for line in again.get_logs.aio()])
        print(len([a async for a in flyte.remote.Action.listall.aio("one")]))
    asyncio.run(main())
    """
    lines = python(flyte, code)
    assert lines[lines.index("---") + 1 :] == [
        "a0 sdk.maps succeeded None 1 {'n': 3} 3",
        "[('sdk.leaf', 'sdk.leaf_map', 0, 'succeeded', True), ('sdk.leaf', 'sdk.leaf_map', 1,"
        " 'succeeded', True), ('sdk.leaf', 'sdk.leaf_map', 2, 'failed', True)]",
        "[False, False, True] two",
        "True one a0 {'o0': 10} ['leaf 1']",
        "UTC process ['sdk.leaf']",
        "RuntimeUserError sdk.leaf: ValueError: two",
        "UsageError The action NAME has ended already (succeeded)",
        "NotFound No action named 'a1x' in the run one",
        "{'n': 1} 10 ['leaf 1']",
        "4",
    ]


def test_a_child_is_watched_and_aborted_from_python(flyte: Shell, tmp_path: Path) -> None:
    """Another process waits for a child, follows its log, and aborts it; the run goes on."""
    (flyte.project / "sdk.py").write_text(TASKS)
    command = flyte.start("run", "--name", "one", "sdk.py", "catches")
    code = """
    def found():
        try:
            return [a for a in flyte.remote.Action.listall("one") if a.task_name == "sdk.sleeps"]
        except flyte.errors.NotFound:
            return []
    while not found():
        time.sleep(0.1)
    (child,) = found()
    print(next(child.get_logs()), child.done(), child.phase, child)
    threading.Thread(target=child.abort, args=["enough"]).start()
    child.wait()
    print(child.phase, child.error_message.endswith("aborted it: enough"))
    try:
        child.outputs()
    except flyte.errors.ActionAbortedError as error:
        print(error.what.replace(child.name, "NAME"))
    run = flyte.Run.get("one")
    print(run.outputs()[0] == child.error_message, run.first_failure().name == child.name)
    """
    lines = python(flyte, code)
    command.communicate(timeout=30)
    name = lines[0].split()[4]
    assert [line.replace(name, "NAME") for line in lines] == [
        "asleep False running <action NAME of the run one: sdk.sleeps running>",
        "aborted True",
        "The action NAME of the run one was aborted",
        "True True",
    ]
    assert command.returncode == 0
