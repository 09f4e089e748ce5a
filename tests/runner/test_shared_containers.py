"""Containers that children of one environment share: one worker after another, or kept ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest

from tests.support.bases import rootfs
from tests.support.command import Shell
from tests.support.engines import Engine
from tests.support.registries import Server

pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.slow]

TASKS = """
import asyncio, os, subprocess, sys, time
import flyte

image = "{image}"
fresh = flyte.TaskEnvironment(
    name="fresh", image=image, secrets=[flyte.Secret(key="TOKEN", mount="/secrets/token")]
)
other = flyte.TaskEnvironment(
    name="other", image=image, secrets=[flyte.Secret(key="OTHER", mount="/secrets/token")]
)
small = flyte.TaskEnvironment(
    name="small", image=image, resources=flyte.Resources(cpu=1, memory="200Mi")
)
kept = flyte.TaskEnvironment(name="kept", image=image, reusable=flyte.ReusePolicy(replicas=1))
shared = flyte.TaskEnvironment(
    name="shared", image=image, reusable=flyte.ReusePolicy(replicas=1, concurrency=5)
)
env = flyte.TaskEnvironment(name="plain", depends_on=[fresh, other, small, kept, shared])
CALLS = 0

def told() -> dict[str, str]:
    global CALLS
    CALLS += 1
    return {{
        "container": os.uname().nodename,
        "pid": str(os.getpid()),
        "calls": str(CALLS),
        "user": str(os.getuid()),
        "folder": os.getcwd(),
        "action": str(flyte.ctx().action.name),
        "mark": os.environ["FLYTE_ACTION"],
        "processes": str(sum(map(str.isdigit, os.listdir("/proc")))),
    }}

@fresh.task
async def one(x: int) -> dict[str, str]:
    found = told()
    subprocess.Popen(["sleep", "987654"], start_new_session=True)
    print("says", x, open("/secrets/token/TOKEN").read(), os.path.exists("left"))
    open("left", "w").close()
    return found

@fresh.task
def sees() -> list[str]:
    return sorted(os.listdir("/secrets/token"))

@other.task
def sees_other() -> list[str]:
    return sorted(os.listdir("/secrets/token"))

@small.task
async def greedy(mebibytes: int) -> int:
    return len(bytearray(mebibytes << 20).replace(b"\\0", b"x"))

@kept.task
async def again(x: int) -> dict[str, str]:
    return told()

@shared.task
async def beside(x: int) -> dict[str, str]:
    print("beside", x)
    await asyncio.sleep(0.2)
    return told()

@fresh.task
def stubborn() -> int:
    import signal
    if flyte.ctx().attempt_number:
        return 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("started", flush=True)
    time.sleep(600)
    return 0

@fresh.task
def reads(name: str) -> str:
    return open(name).read()

@env.task
async def calls(task: str, n: int) -> list[dict[str, str]]:
    call = {{"one": one, "again": again, "beside": beside}}[task]
    return list(await asyncio.gather(*(call(x) for x in range(n))))

@env.task
async def secrets() -> list[list[str]]:
    return [await sees.aio(), await sees_other.aio(), await sees.aio()]

@env.task
async def eats() -> list[str]:
    found = [str(await greedy(1))]
    try:
        await greedy(1000)
    except flyte.errors.OOMError as error:
        found.append(str(error))
    return [*found, str(await greedy(2))]

@env.task
async def gives_up() -> int:
    try:
        await asyncio.wait_for(stubborn.aio(), 3)
    except TimeoutError:
        pass
    return int((await one(1))["calls"])

@env.task
async def misses() -> str:
    try:
        return await reads.aio("only_here.txt")
    except FileNotFoundError as error:
        return error.hint
"""


@pytest.fixture(scope="module")
def image(engine: Engine, registry: Server) -> str:
    """An image with Debian's Python, and a user of its own."""
    own = engine.build(f"FROM {engine.imported(rootfs())}\nRUN useradd --uid 4321 bob\nUSER bob\n")
    return engine.pushed(own, registry.repository("docker/shared") + ":1")


@pytest.fixture
def shell(engine: Engine, image: str, tmp_path: Path) -> Shell:
    """A project whose children run in containers."""
    return project(tmp_path, engine, image)


def project(tmp_path: Path, engine: Engine, image: str) -> Shell:
    """Return a project whose children run in containers of an image."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "tasks.py").write_text(TASKS.format(image=image))
    variables = {"DOCKER_HOST": engine.host, "FLYTE_DOCKER_NETWORK": "none", "TOKEN": "secret"}
    variables["OTHER"] = "other"
    return Shell(folder, tmp_path / "home", variables)


def calls(shell: Shell, engine: Engine, task: str, n: int) -> list[dict[str, str]]:
    """Call a task a number of times, and return what the calls have found."""
    done = shell.json("run", "tasks.py", "calls", "--task", task, "--n", str(n))
    engine.is_rid_of(done["run"])
    found: list[dict[str, str]] = done["outputs"]["o0"]
    return found


def test_children_are_processes_of_their_own(shell: Shell, engine: Engine) -> None:
    """Each has its process, its directory and its log, and nothing of the one before is left."""
    done = shell("-of", "json", "run", "tasks.py", "calls", "--task", "one", "--n", "8")
    result = json.loads(done.stdout)
    found = result["outputs"]["o0"]
    processors = os.cpu_count() or 1
    assert 1 <= len({each["container"] for each in found}) <= processors
    assert {each["calls"] for each in found} == {"1"} and len(
        {each["folder"] for each in found}
    ) == 8
    assert all(each["action"] == each["mark"] for each in found)
    assert {each["user"] for each in found} == {"4321"}
    # The first process, the server, and the worker.
    assert {each["processes"] for each in found} == {"3"}
    assert done.stderr.count("secret False") == 8
    engine.is_rid_of(result["run"])
    actions = shell.home / "data/v1/runs" / result["run"] / "actions"
    assert not [*actions.glob("*/work/tasks.py")] and len([*actions.glob("*/work/left")]) == 8


def test_secrets_stay_with_those_that_declare_them(shell: Shell) -> None:
    """Environments share no container if their secrets differ."""
    found = shell.json("run", "tasks.py", "secrets")["outputs"]["o0"]
    assert found == [["TOKEN"], ["OTHER"], ["TOKEN"]]


def test_children_may_have_a_container_each(shell: Shell, engine: Engine) -> None:
    """A variable turns the forks off."""
    shell.variables["FLYTE_FORK"] = "0"
    found = calls(shell, engine, "one", 3)
    assert len({each["container"] for each in found}) == 3


def test_workers_are_kept_in_containers(shell: Shell, engine: Engine) -> None:
    """One process takes one action after another."""
    found = calls(shell, engine, "again", 5)
    assert len({(each["container"], each["pid"]) for each in found}) == 1
    assert sorted(each["calls"] for each in found) == ["1", "2", "3", "4", "5"]


def test_a_worker_in_a_container_takes_several_actions(shell: Shell, engine: Engine) -> None:
    """Each of them has its own context, and its own lines."""
    done = shell("-of", "json", "run", "tasks.py", "calls", "--task", "beside", "--n", "5")
    found = json.loads(done.stdout)["outputs"]["o0"]
    assert len({each["pid"] for each in found}) == 1
    assert len({each["action"] for each in found}) == 5
    assert {each["mark"] for each in found} == {"shared-1"}
    for x, each in enumerate(found):
        assert f"[beside {each['action'][:6]}] beside {x}" in done.stderr


def test_a_child_has_the_memory_of_its_container(shell: Shell) -> None:
    """One that takes more fails with the reason, and the next ones have another container."""
    small, reason, large = shell.json("run", "tasks.py", "eats")["outputs"]["o0"]
    assert (small, large) == (str(1 << 20), str(2 << 20))
    assert "more than its 200 MiB of memory" in reason


def test_a_child_that_does_not_end_is_killed(shell: Shell) -> None:
    """Its container goes with it, and the next child gets another one."""
    assert shell.json("run", "tasks.py", "gives_up")["outputs"]["o0"] == 1


def test_a_file_that_is_missing_in_a_container_is_explained(shell: Shell) -> None:
    """The project has it, but the bundle does not."""
    (shell.project / "only_here.txt").write_text("here")
    hint = shell.json("run", "tasks.py", "misses")["outputs"]["o0"]
    assert "only_here.txt is in the project" in hint and 'include=["only_here.txt"]' in hint


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("rm -f /usr/bin/python3", "has no python3 on its PATH"),
        ("printf '#!/bin/sh\\nexit 9\\n' > /usr/bin/python3", "ended with exit code 9"),
    ],
)
def test_an_image_without_python_is_explained(
    engine: Engine, registry: Server, tmp_path: Path, change: str, reason: str
) -> None:
    """No server can run in it, so the child gets a container of its own, which tells why."""
    own = engine.build(f"FROM {engine.imported(rootfs())}\nRUN {change}\n")
    broken = engine.pushed(own, registry.repository("docker/broken") + ":1")
    shell = project(tmp_path, engine, broken)
    done = shell("run", "tasks.py", "calls", "--task", "one", "--n", "1", exit_code=1)
    assert reason in done.stderr and "was lost" not in done.stderr


def test_a_server_that_is_killed_loses_its_child(shell: Shell, engine: Engine) -> None:
    """The child runs again, in another container; its caller does not notice."""
    name = f"killed-{os.urandom(4).hex()}"
    command = shell.start("run", "--name", name, "tasks.py", "gives_up")
    assert command.stdout is not None
    while "started" not in command.stdout.readline():
        assert command.poll() is None, command.communicate()
    servers = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any("fork_server" in word for word in process.info["cmdline"] or ())
        and "/opt/flyte/api/fork-" in " ".join(process.info["cmdline"])
    ]
    for server in servers:
        server.kill()
    out, errors = command.communicate(timeout=60)
    assert command.returncode == 0, errors
    assert "was lost" in errors and out.rstrip().endswith("1")
    engine.is_rid_of(name)
