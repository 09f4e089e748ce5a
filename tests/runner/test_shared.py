"""Workers that carry out several actions at once, each a coroutine in one event loop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Shell, wait_for_no_sleepers

TASKS = """
import asyncio, contextvars, logging, os, subprocess, sys, threading, time
import flyte

shared = flyte.TaskEnvironment(
    name="shared", reusable=flyte.ReusePolicy(replicas={replicas}, concurrency={concurrency})
)
env = flyte.TaskEnvironment(name="plain", depends_on=[shared])
logging.basicConfig(level="INFO")
NOW = MOST = 0

@shared.task
async def child(x: int) -> dict[str, str]:
    global NOW, MOST
    NOW += 1
    MOST = max(MOST, NOW)
    print(f"begins {{x}}\\n", end="")  # Written at once, so that nothing comes between.
    logging.info("logs %s", x)
    for _ in range(50):
        await asyncio.sleep(0.2)
        if MOST >= {awaited}:
            break
    await asyncio.gather(
        asyncio.create_task(inner(x)), asyncio.to_thread(print, f"from a thread {{x}}\\n", end="")
    )
    NOW -= 1
    return {{"pid": str(os.getpid()), "most": str(MOST), "own": str(flyte.ctx().action.name)}}

async def inner(x: int) -> None:
    print(f"an inner task {{x}}\\n", end="", file=sys.stderr)

@shared.task
async def nested(n: int) -> int:
    return n and 1 + await nested(n - 1)

@shared.task
async def fails(x: int) -> None:
    raise ValueError(str(x))

@shared.task
async def exits() -> None:
    sys.exit(3)

@shared.task
async def exits_in_a_task() -> None:
    await asyncio.create_task(exits_now())

async def exits_now() -> None:
    sys.exit(4)

@shared.task
async def waits(path: str) -> int:
    try:
        await asyncio.sleep(600)
    finally:
        open(path, "w").close()
    return 1

@shared.task
async def blocks(path: str) -> None:
    await asyncio.sleep(0.5)
    open(path, "w").close()
    time.sleep(600)

@shared.task
async def dies() -> None:
    await asyncio.sleep(0.5)
    os._exit(7)

@shared.task
async def survives(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return flyte.ctx().attempt_number

@shared.task
async def leaves() -> None:
    subprocess.Popen(["sleep", "987654"], start_new_session=True)
    os.system("echo of a process")
    asyncio.create_task(asyncio.sleep(600))

@shared.task
async def in_thread(with_context: bool) -> str:
    found = []
    def work() -> None:
        print("in the thread")
        try:
            found.append(flyte.ctx().action.name)
        except flyte.errors.NotInTaskContextError as error:
            found.append(str(error))
    if with_context:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
    else:
        thread = threading.Thread(target=work)
    thread.start()
    await asyncio.to_thread(thread.join)
    return found[0]

@env.task
async def at_once(n: int) -> list[dict[str, str]]:
    return list(await asyncio.gather(*(child(x) for x in range(n))))

@env.task
async def deep(n: int) -> int:
    return await nested(n)

@env.task
async def troubles() -> list[str]:
    found = []
    for call in (fails.aio(1), exits.aio(), exits_in_a_task.aio()):
        try:
            await call
        except flyte.errors.RuntimeUserError as error:
            found.append(error.code)
        found.append(str(await survives(0.0)))
    return found

@env.task
async def gives_up(path: str) -> list[int]:
    other = asyncio.create_task(survives(2.0))
    try:
        await asyncio.wait_for(waits(path), 1)
    except TimeoutError:
        pass
    return [await other, int(os.path.exists(path))]

@env.task
async def stuck(path: str) -> list[int]:
    others = [asyncio.create_task(survives(1.5 + x)) for x in range(2)]
    blocked = asyncio.create_task(blocks(path))
    while not os.path.exists(path):
        await asyncio.sleep(0.05)
    blocked.cancel()
    return list(await asyncio.gather(*others))

@env.task
async def crash() -> list[str]:
    others = [survives(1.0) for _ in range(2)]
    found = await asyncio.gather(dies.override(retries=0)(), *others, return_exceptions=True)
    return [each.code if isinstance(each, Exception) else str(each) for each in found]

@env.task
async def threads() -> list[str]:
    return [await in_thread(True), await in_thread(False)]

@env.task
async def left() -> int:
    await leaves()
    return await survives(0.0)
"""


@pytest.fixture
def shell(flyte: Shell) -> Shell:
    """A project with the tasks of this file: one worker, which takes ten actions."""
    write(flyte.project)
    return flyte


def write(project: Path, replicas: str = "1", concurrency: int = 10, awaited: int = 0) -> None:
    """Write the tasks of this file into a project; some calls of `child` wait for each other."""
    text = TASKS.format(replicas=replicas, concurrency=concurrency, awaited=awaited)
    (project / "shares.py").write_text(text)


def outputs(shell: Shell, task: str, *args: str) -> Any:
    """Run a task, and return its output."""
    return shell.json("run", "shares.py", task, *args)["outputs"]["o0"]


def test_actions_run_at_once_in_one_worker(shell: Shell) -> None:
    """Each has its own context, its own lines and its own log."""
    write(shell.project, awaited=4)
    found = shell.json("run", "shares.py", "at_once", "--n", "4")
    calls = found["outputs"]["o0"]
    assert len({each["pid"] for each in calls}) == 1 and len({each["own"] for each in calls}) == 4
    assert {each["most"] for each in calls} == {"4"}
    logs = [shell("get", "logs", found["run"], each["own"]).stdout for each in calls]
    for x, log in enumerate(logs):
        lines = sorted(log.splitlines())
        expected = ["begins", "from a thread", "INFO:root:logs", "an inner task"]
        assert lines == sorted(f"{text} {x}" for text in expected)


@pytest.mark.parametrize(("replicas", "concurrency"), [("1", 2), ("2", 3), ("(1, 2)", 10)])
def test_a_worker_has_so_many_seats(shell: Shell, replicas: str, concurrency: int) -> None:
    """Not more actions than that run in one at once, nor in more workers."""
    write(shell.project, replicas, concurrency)
    calls = outputs(shell, "at_once", "--n", "8")
    assert max(int(each["most"]) for each in calls) <= concurrency
    assert len({each["pid"] for each in calls}) <= 2


def test_calls_may_be_nested_deeper_than_there_are_seats(shell: Shell) -> None:
    """An action that waits for a child leaves its seat to others."""
    assert outputs(shell, "deep", "--n", "25") == 25


def test_a_failed_action_leaves_the_others_alone(shell: Shell) -> None:
    """An exception, and an exit, also of an inner task, end only that action."""
    assert outputs(shell, "troubles") == ["ValueError", "0", "SystemExit", "0", "SystemExit", "0"]


def test_a_cancelled_action_may_tidy_up(shell: Shell, tmp_path: Path) -> None:
    """It is cancelled as a coroutine, and the others go on."""
    assert outputs(shell, "gives_up", "--path", str(tmp_path / "tidied")) == [0, 1]


def test_an_action_that_does_not_yield_ends_its_worker(shell: Shell, tmp_path: Path) -> None:
    """The others in it are lost, not failed: they run again."""
    assert outputs(shell, "stuck", "--path", str(tmp_path / "blocks")) == [1, 1]


def test_a_worker_that_ends_loses_its_actions(shell: Shell) -> None:
    """All are tried again, each in a worker of its own, so that only the one at fault fails."""
    assert outputs(shell, "crash") == ["RuntimeUnknownError", "1", "1"]


def test_a_thread_without_context_is_told_how_to_get_one(shell: Shell) -> None:
    """The error names the way, and what the thread prints goes to the log of the worker."""
    ran = shell("-of", "json", "run", "shares.py", "threads")
    found = json.loads(ran.stdout)
    own, refused = found["outputs"]["o0"]
    assert own.startswith("a") and "contextvars.copy_context().run" in refused
    assert "[shared-1] in the thread" in ran.stderr
    log = shell.home / "data/v1/runs" / found["run"] / "actions/shared-1/log"
    assert log.read_text() == "in the thread\n"


def test_a_worker_ends_with_what_its_actions_have_left(shell: Shell) -> None:
    """Processes end with the worker, tasks of an action with that."""
    assert outputs(shell, "left") == 0
    wait_for_no_sleepers()


def test_actions_wait_for_descriptors(shell: Shell) -> None:
    """Not more run at once than this process may open files for."""
    write(shell.project, concurrency=1000)
    limited = replace(shell, program=("prlimit", "--nofile=256:256", *shell.program))
    calls = outputs(limited, "at_once", "--n", "100")
    assert max(int(each["most"]) for each in calls) < 50 and len(calls) == 100
