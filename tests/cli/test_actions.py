"""Actions of a run on the command line: the tree, the timeline, one of them, logs and aborts."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import FLYTE, Shell, wait_for_no_sleepers
from tests.support.terminal import Terminal

TREE = """
import asyncio, os, subprocess, sys, time
import flyte

env = flyte.TaskEnvironment(name="tree")

@env.task
def leaf(n: int) -> int:
    if n == 3:
        raise ValueError("three\\nis too many")
    return n

@env.task
def maps(n: int) -> int:
    return len(list(flyte.map(leaf, range(n))))

@env.task(retries=1)
def flaky(path: str) -> int:
    if not os.path.exists(path):
        open(path, "w").close()
        raise ValueError("again")
    return 1

@env.task
def top(path: str) -> int:
    with flyte.group("firsts"):
        leaf(1)
    return maps(12) + flaky(path)

@env.task
def deep(n: int) -> int:
    return 0 if n == 0 else deep(n - 1)

@env.task
async def sleeps(go: str) -> str:
    subprocess.Popen(["sleep", "987654"])
    while not os.path.exists(go):
        await asyncio.sleep(0.05)
    print("going", flush=True)
    await asyncio.sleep(600)

@env.task
async def between(go: str) -> str:
    return await sleeps(go)

@env.task
async def catches(go: str) -> str:
    try:
        return await between(go)
    except flyte.errors.ActionAbortedError as error:
        print("caught", flush=True)
        await asyncio.sleep(1)
        return f"{error.code}: {error}"
"""


@pytest.fixture
def tree(flyte: Shell) -> Shell:
    """A project with tasks that call tasks."""
    (flyte.project / "tree.py").write_text(TREE)
    return flyte


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A project with the ended run `one` of 16 actions, one of which has failed; only read."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "tree.py").write_text(TREE)
    shell = Shell(folder, tmp_path_factory.mktemp("home"))
    shell("run", "--name", "one", "tree.py", "top", "--path", str(folder / "flaky"))
    return shell


def by_task(flyte: Shell) -> dict[str, dict[str, Any]]:
    """Return the actions of the run `one` by their tasks; only one of each task."""
    return {each["task"]: each for each in flyte.json("get", "action", "one")}


def shown(text: str) -> list[str]:
    """Return the lines of a tree without the seconds and the summary of the run."""
    _, _, text = text.partition("\n\n")
    return re.sub(r" +\d+\.\d s", "", text).splitlines()  # Also the spaces before them.


def test_a_run_is_shown_with_the_tree_of_its_actions(ran: Shell) -> None:
    """Many calls of a task are one line; those that failed follow it with their reasons."""
    lines = shown(ran("get", "run", "one").stdout)
    names = {task: each["name"][:6] for task, each in by_task(ran).items()}
    assert [line.split("  ")[0] for line in map(str.lstrip, lines)] == [
        "a0 tree.top",
        next(line.split()[0] + " tree.leaf [firsts]" for line in lines if "firsts" in line),
        f"{names['tree.maps']} tree.maps",
        "12 x tree.leaf",
        next(line.split()[0] + " tree.leaf" for line in lines if "three" in line),
        f"{names['tree.flaky']} tree.flaky",
    ]
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 2, 4, 6, 2]
    assert lines[3].endswith("11 succeeded, 1 failed") and lines[4].endswith("failed  three")
    assert lines[5].endswith("succeeded  2 attempts")
    cut = shown(ran("get", "run", "one", "--limit", "2").stdout)
    assert cut[:2] == lines[:2]
    assert cut[2:] == ["... and 4 more lines: `flyte get run one --limit 6`"]


def test_the_document_of_a_run_has_all_actions(ran: Shell) -> None:
    """JSON has every action in the order of the calls, unless it is limited."""
    found = ran.json("get", "run", "one")
    assert len(found["actions"]) == 16 and found["outputs"] == {"o0": 13}
    assert found["actions"] == ran.json("get", "action", "one")
    assert found["actions"][:2] == ran.json("get", "run", "one", "--limit", "2")["actions"]
    assert found == ran.json("get", "run", "--timeline", "one")


def test_a_run_without_children_has_no_tree(flyte: Shell) -> None:
    flyte("run", "--name", "one", "tasks.py", "hello")
    lines = flyte("get", "run", "one").stdout.splitlines()
    assert lines[0] == "name     one" and lines[-1] == "output o0: Hello, World!"


def test_the_timeline_fits_into_80_columns(ran: Shell) -> None:
    """Each action has a bar: first the time that it waited, then the time that it ran."""
    first, *lines = ran("get", "run", "--timeline", "one").stdout.splitlines()
    assert len(lines) == 16 and max(map(len, [first, *lines])) <= 80
    assert re.fullmatch(r" +0 +\d+\.\d s", first)
    bars = [re.fullmatch(r" *\w+ tree\.\w+ +([.#]+) +(\d+\.\d s( failed)?)", it) for it in lines]
    assert all(bars) and re.fullmatch("#+", bars[0][1])  # type: ignore[index]
    assert any(re.fullmatch(r"\.+#+", bar[1]) for bar in bars if bar)
    assert "--timeline needs" in ran("get", "run", "--timeline", exit_code=2).stderr


def test_a_terminal_shows_as_much_as_fits(ran: Shell) -> None:
    """On a terminal, lines are as wide as it is, and times are local unless they are in UTC."""
    terminal = Terminal(ran, FLYTE, "get", "run", "--timeline", "one")
    assert 110 < max(map(len, terminal.end().splitlines())) <= 123
    name = by_task(ran)["tree.maps"]["name"]
    assert " ago" in Terminal(ran, FLYTE, "get", "action", "one", name).end()
    assert re.search(
        r"started  \S+Z", Terminal(ran, FLYTE, "get", "action", "--utc", "one", name).end()
    )


def test_deep_calls_keep_their_names(tree: Shell) -> None:
    """However deep a call is, its line has its name and its state, also on a narrow terminal."""
    tree("run", "--local", "--name", "one", "tree.py", "deep", "--n", "40")
    terminal = Terminal(tree, FLYTE, "get", "run", "one", columns=60)
    lines = terminal.end().splitlines()[-41:]
    assert all(re.match(r" *a\w+ t\S+ +succeeded +\d+\.\d s", line) for line in lines)
    assert max(map(len, lines)) <= 60


def test_an_action_is_found_by_a_beginning_of_its_name(ran: Shell) -> None:
    """A beginning that several actions share names none of them."""
    maps = by_task(ran)["tree.maps"]
    assert ran.json("get", "action", "one", maps["name"][:7]) == maps
    assert ran.json("get", "io", "one", maps["name"][:7]) == {
        "inputs": {"n": 12},
        "outputs": {"o0": 12},
    }
    text = ran("get", "action", "one", maps["name"]).stdout
    assert f"name     {maps['name']}\ntask     tree.maps\nparent   a0\n" in text
    rows = [line.split("\t") for line in ran("get", "action", "one").stdout.splitlines()]
    assert len(rows) == 16 and {len(row) for row in rows} == {8}
    assert [row[-2:] for row in rows if row[2] == "failed"] == [[maps["name"], "three"]]
    refused = ran("get", "action", "one", "a", exit_code=4).stderr
    assert "No action named 'a' in the run one" in refused and "16 actions begin with it" in refused


def started(tree: Shell, tmp_path: Path) -> subprocess.Popen[str]:
    """Start a run of three actions, and wait until the last of them runs."""
    command = tree.start("run", "--name", "one", "tree.py", "catches", "--go", str(tmp_path / "go"))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if "tree.sleeps\trunning" in tree("get", "action", "one", exit_code=None).stdout:
            return command
        time.sleep(0.05)
    raise AssertionError(command.communicate())


def test_a_child_is_aborted_with_all_below_it(tree: Shell, tmp_path: Path) -> None:
    """Its caller receives an error, and goes on; its log ends with the action, not with the run."""
    command = started(tree, tmp_path)
    found = by_task(tree)
    follower = tree.start("get", "logs", "-f", "one", found["tree.sleeps"]["name"][:6])
    time.sleep(0.3)  # It waits for output.
    (tmp_path / "go").touch()
    assert follower.stdout and follower.stdout.readline() == "going\n"
    name = found["tree.between"]["name"]
    aborted = tree.json("abort", "action", "one", name[:6], "--reason", "not needed")
    assert (aborted["action"], aborted["phase"]) == (name, "aborted")
    assert aborted["why"].endswith(" aborted it: not needed")
    assert follower.wait(10) == 0 and follower.communicate() == ("", "")
    assert command.poll() is None  # It is still running.
    assert "has ended already (aborted)" in tree("abort", "action", "one", name, exit_code=2).stderr
    output, errors = command.communicate(timeout=30)
    assert command.returncode == 0, errors
    assert f"ActionAbortedError: {aborted['why']}" in output
    assert f"note: between {name[:6]}: {aborted['why']}." in errors
    phases = {task: each["phase"] for task, each in by_task(tree).items()}
    assert phases == {
        "tree.catches": "succeeded",
        "tree.between": "aborted",
        "tree.sleeps": "aborted",
    }
    wait_for_no_sleepers()


def test_aborting_the_first_action_aborts_the_run(tree: Shell, tmp_path: Path) -> None:
    command = started(tree, tmp_path)
    assert "The run one was aborted." in tree("abort", "action", "one", "a0").stdout
    command.communicate(timeout=30)
    assert command.returncode == 5
    assert {each["phase"] for each in by_task(tree).values()} == {"aborted"}
    wait_for_no_sleepers()


def test_an_action_of_a_local_run_is_not_aborted_alone(tree: Shell, tmp_path: Path) -> None:
    """All actions of a local run share one process, so only the whole run can be aborted."""
    command = tree.start(
        "run", "--local", "--name", "one", "tree.py", "catches", "--go", str(tmp_path / "go")
    )
    deadline = time.monotonic() + 30
    while "tree.sleeps\trunning" not in tree("get", "action", "one", exit_code=None).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    name = by_task(tree)["tree.sleeps"]["name"]
    refused = tree("abort", "action", "one", name, exit_code=2).stderr
    assert "cannot be aborted alone" in refused and "`flyte abort run one`" in refused
    tree("abort", "run", "one")
    command.communicate(timeout=30)
    wait_for_no_sleepers()
