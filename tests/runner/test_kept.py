"""Reusable environments: workers that are kept for later actions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.command import Shell, wait_for_no_sleepers

TASKS = """
import asyncio, os, signal, subprocess, sys, time
import flyte

kept = flyte.TaskEnvironment(name="kept", reusable=flyte.ReusePolicy(replicas={replicas}))
env = flyte.TaskEnvironment(name="plain", depends_on=[kept])
CALLS = 0

def told() -> dict[str, str]:
    global CALLS
    CALLS += 1
    return {{
        "pid": str(os.getpid()),
        "calls": str(CALLS),
        "folder": os.getcwd(),
        "action": os.environ["FLYTE_ACTION"],
        "left": os.environ.get("LEFT", ""),
        "files": str(sorted(os.listdir("."))),
    }}

@kept.task
async def child(x: int) -> dict[str, str]:
    found = told()
    os.environ["LEFT"] = "variable"
    subprocess.Popen(["sleep", "987654"], start_new_session=True)
    print("says", x)
    return found

@kept.task
def fails(x: int) -> None:
    print("fails", x)
    raise ValueError(str(x))

@kept.task
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

@kept.task
def exits() -> None:
    sys.exit(3)

@kept.task
async def slow() -> None:
    await asyncio.sleep(600)

@kept.task
async def nested(n: int) -> int:
    return n and 1 + await nested(n - 1)

@kept.task
async def large(text: str) -> int:
    return len(text)

@env.task
async def one_by_one(n: int) -> list[dict[str, str]]:
    return [await child(x) for x in range(n)]

@env.task
async def at_once(n: int) -> list[dict[str, str]]:
    return list(await asyncio.gather(*(child(x) for x in range(n))))

@env.task
async def troubles() -> list[str]:
    found = [(await child(0))["pid"]]
    for call in (fails.aio(1), exits.aio(), dies.aio()):
        try:
            await call
        except flyte.errors.RuntimeUserError as error:
            found.append(error.code)
        except flyte.errors.RuntimeSystemError as error:
            found.append(error.code)
        found.append((await child(0))["pid"])
    try:
        await asyncio.wait_for(slow(), 0.5)
    except TimeoutError:
        found.append("gave up")
    found.append((await child(0))["pid"])
    return found

@env.task
async def deep() -> int:
    return await nested(5)

@env.task
async def sends() -> list[int]:
    return [await large("x" * size) for size in (10, 3_000_000, 20)]
"""


def outputs(flyte: Shell, task: str, *args: str, replicas: str = "1") -> Any:
    """Run a task, and return its output."""
    (flyte.project / "keeps.py").write_text(TASKS.format(replicas=replicas))
    return flyte.json("run", "keeps.py", task, *args)["outputs"]["o0"]


def test_a_worker_serves_many_actions(flyte: Shell) -> None:
    """Modules stay; directory, variables and processes are those of each action."""
    found = outputs(flyte, "one_by_one", "--n", "4")
    wait_for_no_sleepers()
    assert len({each["pid"] for each in found}) == 1
    assert [each["calls"] for each in found] == ["1", "2", "3", "4"]
    assert len({each["folder"] for each in found}) == len({each["action"] for each in found}) == 4
    assert {(each["left"], each["files"]) for each in found} == {("", "['keeps.py']")}
    run = flyte.last_run()["name"]
    for number, each in enumerate(found):
        assert flyte("get", "logs", run, each["action"]).stdout == f"says {number}\n"


@pytest.mark.parametrize("replicas", [1, 2])
def test_there_are_so_many_workers(flyte: Shell, replicas: int) -> None:
    """Calls wait for one of the replicas."""
    found = outputs(flyte, "at_once", "--n", "9", replicas=str(replicas))
    wait_for_no_sleepers()
    assert len({each["pid"] for each in found}) <= replicas
    assert sum(each["calls"] == "1" for each in found) == len({each["pid"] for each in found})


def test_what_ends_a_worker(flyte: Shell) -> None:
    """An error of a task does not, its death and its cancellation do; another worker follows."""
    found = outputs(flyte, "troubles")
    wait_for_no_sleepers()
    first, failed, second, exited, third, died, fourth, cancelled, fifth = found
    assert failed == "ValueError" and first == second
    assert exited == "SystemExit" and second == third
    assert died and third != fourth
    assert cancelled == "gave up" and fourth != fifth


def test_calls_within_a_team_do_not_block_it(flyte: Shell) -> None:
    """A worker that waits for a child leaves its place to others."""
    assert outputs(flyte, "deep") == 5


def test_large_inputs_reach_a_kept_worker(flyte: Shell) -> None:
    """They come the same way as small ones."""
    assert outputs(flyte, "sends") == [10, 3_000_000, 20]
