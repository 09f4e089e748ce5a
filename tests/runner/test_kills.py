"""Runs under random kills: each ends in a terminal phase, leaves nothing, and does nothing twice.

A trial is one run with its recoveries. Its seed, which it prints, decides on the tree of actions,
on the victims and on the moments; a test's name has what the seeds of its trials begin with.
"""

from __future__ import annotations

import glob
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import psutil
import pytest

from tests.support.bases import rootfs
from tests.support.command import Shell
from tests.support.engines import Engine
from tests.support.registries import Server

pytestmark = pytest.mark.slow

PATIENCE = 120.0  # Seconds for a run.
GRACE = 30.0  # Seconds until what a run has left is gone, on a machine that is busy.
PAUSE = 0.005  # Seconds between two looks.
MOST = 5  # Kills in a trial.
LOST_RETRIES = 3  # By default.
SUCCEEDED = "SELECT action FROM changes WHERE run=? AND what='succeeded'"
TASKS = """
import asyncio, os, random
import flyte

reuse = flyte.ReusePolicy
options = {{"image": "{image}", "resources": flyte.Resources(cpu=("500m", "2"))}}
host = flyte.TaskEnvironment(name="host")
plain = flyte.TaskEnvironment(name="plain", **options)
kept = flyte.TaskEnvironment(name="kept", reusable=reuse(replicas=2), **options)
shared = flyte.TaskEnvironment(name="shared", reusable=reuse(replicas=2, concurrency=4), **options)

def mark(what: str, folder: str) -> None:
    assert os.path.exists("nodes.py"), "The working directory is gone."
    ctx = flyte.ctx()
    words = ctx.action.run_name, ctx.action.name, str(ctx.attempt_number + 1), what
    file = os.open(f"{{folder}}/marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, f"{{' '.join(words)}}\\n".encode())
    os.close(file)

async def grow(x: int, depth: int, width: int, below: str, folder: str) -> int:
    mark("begins", folder)
    await asyncio.sleep(random.uniform(0, {pause}))
    if depth:
        numbers = range(x * width + 1, x * width + width + 1)
        calls = (NODES[below](i, depth - 1, width, below, folder) for i in numbers)
        x += sum(await asyncio.gather(*calls))
    mark("ends", folder)
    return x

@host.task
async def host_node(x: int, depth: int, width: int, below: str, folder: str) -> int:
    return await grow(x, depth, width, below, folder)

@plain.task
async def plain_node(x: int, depth: int, width: int, below: str, folder: str) -> int:
    return await grow(x, depth, width, below, folder)

@kept.task
async def kept_node(x: int, depth: int, width: int, below: str, folder: str) -> int:
    return await grow(x, depth, width, below, folder)

@shared.task
async def shared_node(x: int, depth: int, width: int, below: str, folder: str) -> int:
    return await grow(x, depth, width, below, folder)

NODES = {{"plain": plain_node, "kept": kept_node, "shared": shared_node}}
"""


class Mark(NamedTuple):
    """Line of a task that `begins` or `ends`; those of an action are in the order of its life."""

    run: str
    action: str
    attempt: int
    what: str


@dataclass
class Killer:
    """Killer of processes that belong to a shell's home or are in containers of its runs.

    `marks_in` is the directory of the tasks' marks, or one above it, and `delay` the longest time
    in seconds before a kill.
    """

    shell: Shell
    marks_in: Path
    delay: float
    engine: Engine | None = None
    random: Random = field(default_factory=Random)
    killed: Counter[str] = field(default_factory=Counter)

    def marks(self, run: str) -> list[Mark]:
        """Return the marks of a run's tasks."""
        files = glob.glob(f"{self.marks_in}/**/marks", recursive=True)
        whole = [Path(file).read_text().rpartition("\n")[0] for file in files]
        lines = [line.split() for text in whole for line in text.splitlines()]
        return [
            Mark(of_run, action, int(attempt), what)
            for of_run, action, attempt, what in lines
            if of_run == run
        ]

    def containers(self, run: str, *filters: str) -> list[str]:
        """Return the ids of a run's containers."""
        return self.engine.containers(f"label=flyte.run={run}", *filters) if self.engine else []

    def processes(self, run: str, command: int = 0) -> dict[str, list[psutil.Process]]:
        """Return the processes that are there, in groups by what they are."""
        found, containers = defaultdict(list), self.containers(run, "status=running")
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get("FLYTE_HOME") == str(self.shell.home):
                    found[_kind(process, command)].append(process)
                elif any(map(_groups(process.pid).count, containers)):
                    is_first = _groups(process.pid) != _groups(process.ppid())
                    found["container" if is_first else "process in one"].append(process)
        return found

    def carry_out(self, run: str, kills: int, *words: str) -> tuple[int, Any]:
        """Carry out a run under some kills; return the command's exit code and the run's output."""
        with self.shell.start("-of", "json", *words) as command, ExitStack() as at_end:
            at_end.callback(command.kill)
            for _ in range(kills):
                self._wait_for_moment(run, command)
                if command.poll() is None:
                    self._kill_one(run, command.pid)
            out, errors = command.communicate(timeout=PATIENCE)
        assert "flyte_build" not in errors, errors
        if command.returncode > 0:
            print(out, errors)
        return command.returncode, json.loads(out)["outputs"] if command.returncode == 0 else None

    def _wait_for_moment(self, run: str, command: subprocess.Popen[str]) -> None:
        """Wait until some more tasks have begun, or for a while after the first one."""
        by_count = self.random.random() < 0.5
        number = len(self.marks(run)) + self.random.randint(1, 8) if by_count else 1
        _wait(lambda: command.poll() is not None or len(self.marks(run)) >= number, PATIENCE)
        if not by_count:
            time.sleep(self.random.uniform(0, self.delay))

    def _kill_one(self, run: str, command: int) -> None:
        """Kill one of the processes, if there are any."""
        if victims := self.processes(run, command):
            kinds = sorted(victims)
            (kind,) = self.random.choices(kinds, [1 + len(victims[each]) for each in kinds])
            with suppress(psutil.NoSuchProcess):
                self.random.choice(victims[kind]).kill()
                self.killed[kind] += 1
                print(f"{run}: killed a {kind} after {len(self.marks(run))} marks")


def _wait(is_done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(PAUSE)


def _kind(process: psutil.Process, command: int) -> str:
    if process.pid == command:
        return "command"
    is_forked, is_below = "fork_server" in " ".join(process.cmdline()), process.ppid() == command
    return ("fork server" if is_below else "forked worker") if is_forked else "started worker"


def _groups(pid: int) -> str:
    """Return the control groups of a process, whose names hold the ids of Docker's containers."""
    return Path(f"/proc/{pid}/cgroup").read_text()


def check(killer: Killer, run: str, exit_code: int, done_before: set[str]) -> set[str]:
    """Check a run that has ended, and return its actions that succeeded.

    Those in `done_before` succeeded in the run that it recovers.
    """
    found = killer.shell.json("get", "run", run)
    actions: list[dict[str, Any]] = found["actions"]
    was_killed = exit_code == -signal.SIGKILL
    if was_killed:
        assert found["phase"] == "succeeded" or found["why"].startswith("lost: ")
    else:
        assert found["phase"] == ("failed" if exit_code else "succeeded")
        assert not exit_code or any(each["attempts"] > LOST_RETRIES for each in actions)
    check_nothing_is_left(killer, run, was_killed)
    marks = defaultdict(list)
    for mark in killer.marks(run):
        marks[mark.action].append(mark)
    assert not done_before & marks.keys(), "They had succeeded before."
    # What begins is recorded a moment later.
    assert was_killed or marks.keys() <= {each["name"] for each in actions}
    for each in actions:
        own = marks[each["name"]]
        assert own == sorted({*own}), "An attempt is there twice, or two are at the same time."
        assert not own or own[-1].attempt <= each["attempts"] + was_killed, (own, each)
        assert each["ended"] and each["phase"] in ("succeeded", "failed", "aborted"), each
        if each["name"] in done_before:
            assert each["phase"] == "succeeded"
        elif each["phase"] == "succeeded":
            assert own[-1] == Mark(run, each["name"], each["attempts"], "ends"), (own, each)
    done = {each["name"] for each in actions if each["phase"] == "succeeded"}
    with closing(sqlite3.connect(killer.shell.home / "data/v1/history.sqlite")) as history:
        assert sorted(done) == sorted(name for (name,) in history.execute(SUCCEEDED, (run,)))
    return done


def check_nothing_is_left(killer: Killer, run: str, was_killed: bool) -> None:
    """Check that a run has left no process, no socket, and of children only what they have written.

    The next command removes the containers, which have ended, of a command that was killed.
    """
    _wait(lambda: not killer.processes(run), GRACE)
    _wait(lambda: was_killed or not killer.containers(run), GRACE)
    folder = killer.shell.home / "data/v1/runs" / run
    assert not [*folder.glob("api"), *folder.glob("*.json.*")]
    for child in folder.glob("actions/*"):
        assert [path.name for path in child.rglob("*")] == ["work", "marks"], child


def trial(killer: Killer, seed: str, below: str, roots: Sequence[str], *shapes: Shape) -> None:
    """Run a tree of actions, and recover it until it has succeeded, under some kills in all."""
    killer.random = Random(seed)
    root, (depth, width) = killer.random.choice(roots), killer.random.choice(shapes)
    kills = killer.killed.total() + killer.random.randint(1, MOST)
    print(f"seed {seed}: {root} over {below}, depth {depth}, width {width}")
    folder = "." if killer.engine else str(killer.marks_in)
    inputs = {"x": 0, "depth": depth, "width": width, "below": below, "folder": folder}
    words = [f"--{name}={value}" for name, value in inputs.items()]
    words = ["run", "nodes.py", f"{root}_node", *words]
    done, runs = set[str](), list[str]()
    while True:
        left = kills - killer.killed.total()
        runs.append(f"kills-{seed}-{len(runs)}")
        exit_code, output = killer.carry_out(
            runs[-1], left, words[0], "--name", runs[-1], *words[1:]
        )
        done = check(killer, runs[-1], exit_code, done)
        if exit_code == 0:
            break
        assert left
        words = ["rerun", "--recover", runs[-1]]
    assert output == {"o0": sum(range(sum(width**level for level in range(depth + 1))))}
    _wait(lambda: not any(map(killer.containers, runs)), GRACE)


Shape = tuple[int, int]
"""Depth and width of a tree of actions; a fan-out has the depth 1."""


@pytest.mark.parametrize("below", ["plain", "kept", "shared"])
@pytest.mark.parametrize("batch", range(4))
def test_kills_of_processes(flyte: Shell, tmp_path: Path, batch: int, below: str) -> None:
    """The command, fork servers and workers, also those that are kept or shared."""
    (flyte.project / "nodes.py").write_text(TASKS.format(image="auto", pause=0.03))
    (tmp_path / "marks").mkdir()
    killer = Killer(flyte, tmp_path / "marks", delay=0.5)
    for number in count():
        if killer.killed.total() >= 17:
            break
        trial(killer, f"{batch}-{below}-{number}", below, ["host"], (1, 30), (2, 4), (3, 3), (4, 2))
    print(killer.killed)


@pytest.mark.skipif("FLYTE_TEST_LARGE" not in os.environ, reason="FLYTE_TEST_LARGE is not set")
@pytest.mark.parametrize("below", ["plain", "kept", "shared"])
def test_kills_of_containers(
    flyte: Shell, engine: Engine, registry: Server, tmp_path: Path, below: str
) -> None:
    """The command, containers, and the processes in them."""
    image = engine.pushed(engine.imported(rootfs()), registry.repository("kills/base") + ":1")
    (flyte.project / "nodes.py").write_text(TASKS.format(image=image, pause=0.5))
    flyte.variables["DOCKER_HOST"] = engine.host
    killer = Killer(flyte, flyte.home / "data", delay=2.0, engine=engine)
    for number in count():
        if killer.killed.total() >= 7:
            break
        trial(killer, f"{below}-{number}", below, ["host", "plain"], (1, 6), (2, 2))
    print(killer.killed)
