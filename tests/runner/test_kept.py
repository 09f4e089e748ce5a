"""Reusable environments: workers that are kept for later actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Shell, wait_for_no_sleepers

TASKS = """
import asyncio, atexit, os, signal, subprocess, sys, threading, time
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

@kept.task
async def leaves(what: str) -> str:
    found = str(os.getpid())
    if what == "process":
        os.system("(sleep 0.5; echo LATE) &")
    elif what == "thread":
        threading.Thread(target=lambda: (time.sleep(3), print("LATE"))).start()
    elif what == "closed":
        sys.stdout.close()
    elif what == "alarm":
        signal.alarm(1)
    elif what == "handler":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.umask(0)
    return found

@kept.task
async def follows() -> str:
    await asyncio.sleep(1.2)
    print("follows", oct(os.umask(0o022)))
    return str(os.getpid())

@kept.task
async def threads(n: int) -> list[int]:
    for _ in range(n):
        await nested(0)
    return [len(sys._current_frames()), len(os.listdir("/proc/self/fd"))]

@kept.task
async def registers(path: str) -> None:
    atexit.register(lambda: open(path, "w").close())

@env.task
async def left(what: str) -> list[str]:
    return [await leaves(what), await follows()]

@env.task
async def counts() -> list[list[int]]:
    return [await threads(2) for _ in range(6)]

@env.task
async def hooks(path: str) -> int:
    await registers(path)
    return 1

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


@pytest.mark.parametrize("what", ["process", "thread", "closed", "alarm", "handler"])
def test_what_an_action_leaves_is_not_the_next_ones(flyte: Shell, what: str) -> None:
    """Processes, timers and handlers end with it; with a thread or closed streams, the worker."""
    first, second = outputs(flyte, "left", "--what", what)
    assert (first == second) == (what in ("process", "alarm", "handler"))
    run = flyte.last_run()["name"]
    actions = flyte.json("get", "run", run)["actions"]
    (follows,) = (each["name"] for each in actions if each["task"] == "kept.follows")
    assert flyte("get", "logs", run, follows).stdout == "follows 0o22\n"


def test_calls_leave_no_threads(flyte: Shell) -> None:
    """A kept worker whose actions call tasks has no more threads and descriptors each time."""
    first, *others = outputs(flyte, "counts")
    assert others == [first] * 5


def test_hooks_of_a_kept_worker_run_at_its_end(flyte: Shell, tmp_path: Path) -> None:
    """The end of the run is the end of the worker, as that of a process that is not killed."""
    outputs(flyte, "hooks", "--path", str(tmp_path / "hooked"))
    assert (tmp_path / "hooked").exists()
