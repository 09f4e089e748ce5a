"""Calls under hard conditions: retried callers, refused calls, nested maps, forked processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.command import Shell, wait_for_no_sleepers

TASKS = """
import asyncio, atexit, datetime, multiprocessing, os, signal
import flyte

broken = flyte.TaskEnvironment(
    name="broken",
    image=flyte.Image.from_debian_base().with_pip_packages("none", index_url="http://127.0.0.1:9/"),
)
env = flyte.TaskEnvironment(name="hard")

def first(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False

@env.task
async def fails_once(folder: str) -> str:
    while not os.path.exists(f"{folder}/slow"):
        await asyncio.sleep(0.01)
    if first(f"{folder}/failed"):
        raise ValueError("once")
    return "passed"

@env.task
async def slow(folder: str) -> str:
    open(f"{folder}/slow", "w").close()
    if not os.path.exists(f"{folder}/failed"):
        await asyncio.sleep(600)
    return "slow"

@env.task(retries=1)
async def gathers(folder: str) -> list[str]:
    return list(await asyncio.gather(fails_once(folder), slow(folder)))

@broken.task
async def in_broken() -> int:
    return 1

@env.task
async def square(x: int) -> int:
    return x * x

@env.task
async def goes_on() -> list[str]:
    found = []
    for call in (in_broken(), in_broken(), square(3), in_broken(), square(4)):
        try:
            found.append(str(await asyncio.wait_for(call, 60)))
        except flyte.errors.FlyteError as error:
            found.append(type(error).__name__)
    return found

@env.task
def triples(x: int) -> int:
    return 3 * x

@env.task
def inner(n: int) -> int:
    return sum(flyte.map(triples, range(n)))

@env.task
def nested(n: int) -> int:
    return sum(flyte.map(inner, [n] * 5))

@env.task
def sees() -> str:
    if os.environ["SEEN"] == "0":
        raise ValueError
    return os.environ["SEEN"]

@env.task(retries=1)
def overrides() -> str:
    return sees.override(env_vars={"SEEN": str(flyte.ctx().attempt_number)})()

@env.task
def killed_at_its_end(folder: str) -> int:
    with open(f"{folder}/times", "a") as file:
        file.write("x")
    atexit.register(os.kill, os.getpid(), signal.SIGKILL)
    return 5

@env.task
def calls_the_killed(folder: str) -> int:
    return killed_at_its_end(folder)

@env.task
async def groups() -> int:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(600))
        raise KeyError("in a group")

@env.task
async def catches_a_group() -> list[str]:
    found = []
    try:
        await groups()
    except* KeyError as errors:
        found = [repr(each) for each in errors.exceptions]
    return found

@env.task
async def cancels_itself() -> int:
    raise asyncio.CancelledError("so it does")

@env.task
async def outlives() -> str:
    try:
        await cancels_itself()
    except Exception as error:
        return error.code
    return "nothing was raised"

@env.task
def maps_what_is_wrong() -> list[str]:
    found = flyte.map(triples, [1, "x", 2])
    return [str(each) if isinstance(each, int) else type(each).__name__ for each in found]

@env.task
def wrong_context() -> str:
    try:
        with flyte.custom_context(day=datetime.date(2026, 1, 2)):
            return str(triples(1))
    except TypeError as error:
        return str(error)

def in_a_fork(x: int) -> int:
    return triples(x)

@env.task
def forks() -> list[int]:
    first = triples(1)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return [first, *pool.map(in_a_fork, [2, 3])]
"""
PLACES = pytest.mark.parametrize("options", [(), ("--local",)], ids=["prepared", "local"])


@pytest.fixture
def hard(flyte: Shell) -> Shell:
    """A project with tasks that call others under hard conditions."""
    (flyte.project / "hard.py").write_text(TASKS)
    return flyte


def run(hard: Shell, task: str, *words: str) -> Any:
    """Run a task, and return its output."""
    return hard.json("run", *words[:1], "hard.py", task, *words[1:])["outputs"]["o0"]


def test_a_retry_hears_nothing_of_the_attempt_before(hard: Shell) -> None:
    """Calls that it has aborted begin anew, even if they end only while the next attempt runs."""
    found = run(hard, "gathers", "--engine=process", "--folder", str(hard.project))
    assert found == ["passed", "slow"]


def test_a_refused_call_leaves_the_others_alone(hard: Shell) -> None:
    """Neither an environment that cannot be made nor an abort of its call ends later calls."""
    found = run(hard, "goes_on", "--engine=process")
    assert [each for each in found if each.isdigit()] == ["9", "16"]
    assert len({*found} - {"9", "16"}) == 1


@PLACES
def test_maps_may_be_nested(hard: Shell, options: tuple[str, ...]) -> None:
    """Calls that wait for calls leave these a thread, or slots."""
    assert run(hard, "nested", *(options or ("--engine=process",)), "--n", "3") == 45


def test_what_begins_anew_is_called_as_it_is_now(hard: Shell) -> None:
    """The overrides of the caller's second attempt count."""
    assert run(hard, "overrides", "--engine=process") == "1"


def test_a_result_outlives_its_worker(hard: Shell) -> None:
    """A task that was killed after it had returned has succeeded, and does not run again."""
    found = run(hard, "calls_the_killed", "--engine=process", "--folder", str(hard.project))
    assert found == 5 and (hard.project / "times").read_text() == "x"
    wait_for_no_sleepers()


@PLACES
def test_groups_of_exceptions_stay_groups(hard: Shell, options: tuple[str, ...]) -> None:
    """The caller's `except*` catches what a task group in a child has raised."""
    found = run(hard, "catches_a_group", *(options or ("--engine=process",)))
    assert found == ["KeyError('in a group')"]


def test_an_exception_that_cancels_does_not_cancel_the_caller(hard: Shell) -> None:
    """It comes as an error with its name."""
    assert run(hard, "outlives", "--engine=process") == "CancelledError"


@PLACES
def test_a_wrong_item_of_a_map_is_one_error(hard: Shell, options: tuple[str, ...]) -> None:
    found = run(hard, "maps_what_is_wrong", *(options or ("--engine=process",)))
    assert found == ["3", "InputError", "6"]


@PLACES
def test_a_context_holds_strings(hard: Shell, options: tuple[str, ...]) -> None:
    found = run(hard, "wrong_context", *(options or ("--engine=process",)))
    assert found == "The value of 'day' must be a string, not datetime.date(2026, 1, 2)"


def test_forked_processes_call_tasks(hard: Shell) -> None:
    """A process that is forked after a call has a client of its own."""
    assert run(hard, "forks", "--engine=process") == [3, 6, 9]
