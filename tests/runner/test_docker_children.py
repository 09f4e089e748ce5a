"""Tasks in containers that call tasks in containers and in processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bases import rootfs
from tests.support.command import Shell, wait_for_no_sleepers
from tests.support.engines import Engine, own_daemon
from tests.support.registries import Server

TASKS = """
import asyncio, os, subprocess, sys, time
import flyte
import flyte.remote

host = flyte.TaskEnvironment(name="host")
boxed = flyte.TaskEnvironment(name="boxed", image="{image}", depends_on=[host])

def here() -> str:
    return "container" if __file__.startswith("/opt/flyte/code/") else "process"

class Odd(ValueError):
    pass

@boxed.task
def boxed_leaf(x: int) -> list[str]:
    print("leaf", x, os.getuid())
    return [here()]

@host.task
def host_leaf() -> list[str]:
    return [here()]

@host.task
def host_middle(x: int) -> list[str]:
    return [here(), *boxed_leaf(x)]

@boxed.task
def boxed_root() -> list[str]:
    return [here(), *host_middle(1), *host_leaf()]

@host.task
def host_root() -> list[str]:
    return [here(), *boxed_middle()]

@boxed.task
def boxed_middle() -> list[str]:
    return [here(), *host_leaf(), *boxed_leaf(2)]

@boxed.task
async def gathers(n: int) -> list[str]:
    found = await asyncio.gather(*[boxed_leaf.aio(i) for i in range(n)])
    return [*sorted(os.listdir("/sys/class/net")), *[each for part in found for each in part]]

@boxed.task
async def calls_deployed() -> list[str]:
    leaf = flyte.remote.Task.get("boxed.boxed_leaf", version="v1")
    return [(await leaf.fetch.aio()).version, *await leaf(x=1)]

@boxed.task
def odd() -> int:
    raise Odd("so it is")

@boxed.task
def catches() -> str:
    try:
        odd()
    except Odd as error:
        return str(error)
    return "nothing was raised"

@boxed.task
def waits_once() -> int:
    print("started", flush=True)
    attempt = flyte.ctx().attempt_number
    if not attempt:
        time.sleep(600)
    return attempt

@boxed.task
def calls_waits_once() -> int:
    return waits_once()

@boxed.task
def sleeps(x: int) -> None:
    print("started", flush=True)
    time.sleep(600)

@host.task
def sleeps_on_the_host() -> None:
    subprocess.Popen(["sleep", "987654"])
    print("started", flush=True)
    time.sleep(600)

@boxed.task
async def all_sleep() -> None:
    await asyncio.gather(sleeps.aio(1), sleeps_on_the_host.aio())
"""


Project = Callable[..., Shell]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A factory of projects with tasks for containers of an image, and for processes."""

    def make(engine: Engine, image: str, **variables: str) -> Shell:
        folder = tmp_path / "project"
        folder.mkdir()
        (folder / "tasks.py").write_text(TASKS.format(image=image))
        return Shell(folder, tmp_path / "home", {"DOCKER_HOST": engine.host, **variables})

    return make


@pytest.fixture(scope="module")
def image(engine: Engine, registry: Server) -> str:
    """An image with Debian's Python, by its digest in the registry."""
    name = registry.repository("docker/children") + ":1"
    return engine.pushed(engine.imported(rootfs()), name)


@pytest.fixture
def shell(project: Project, engine: Engine, image: str) -> Shell:
    """A project whose tasks run where they can."""
    return project(engine, image)


def actions(shell: Shell, name: str) -> list[dict[str, Any]]:
    """Return the actions of a run."""
    found: list[dict[str, Any]] = shell.json("get", "action", name)
    return found


@contextmanager
def started(shell: Shell, name: str, task: str, *children: str) -> Iterator[subprocess.Popen[str]]:
    """Start a run, wait until the named tasks that it calls have begun, and yield its command."""
    command = shell.start("run", "--name", name, "tasks.py", task)
    lines: list[str] = []
    assert command.stdout is not None
    while not all(any(f"[{child} " in line for line in lines) for child in children):
        lines.append(command.stdout.readline())
        assert lines[-1], command.communicate()
    try:
        yield command
    finally:
        if command.poll() is None:
            command.kill()
        command.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "places", "engines"),
    [
        (
            "boxed_root",
            ["container", "process", "container", "process"],
            ["docker", "process", "docker", "process"],
        ),
        (
            "host_root",
            ["process", "container", "process", "container"],
            ["process", "docker", "process", "docker"],
        ),
    ],
)
def test_containers_and_processes_call_each_other(
    shell: Shell, engine: Engine, task: str, places: list[str], engines: list[str]
) -> None:
    """An image that is only in containers calls the host's interpreter, and the reverse."""
    done = shell("run", "--name", f"mix-{task}", "tasks.py", task)
    assert str(places) in done.stdout.replace('"', "'")
    assert "[boxed_leaf a" in done.stdout and "] leaf " in done.stdout
    assert done.stderr.count("boxed runs in a container") == 1
    found = actions(shell, f"mix-{task}")
    assert [each["engine"] for each in found[1:]] == engines[1:]
    assert {each["phase"] for each in found} == {"succeeded"}
    engine.is_rid_of(f"mix-{task}")


@pytest.mark.slow
def test_containers_call_deployed_tasks(shell: Shell) -> None:
    """The controller finds deployed tasks for a container, which has no library to do so."""
    shell("deploy", "--version", "v1", "--all", "tasks.py")
    done = shell.json("run", "tasks.py", "calls_deployed")
    assert done["outputs"]["o0"] == ["v1", "container"]


@pytest.mark.slow
def test_children_need_no_network(project: Project, engine: Engine, image: str) -> None:
    """Workers in containers reach the controller without any network."""
    shell = project(engine, image, FLYTE_DOCKER_NETWORK="none")
    done = shell.json("run", "tasks.py", "gathers", "--n", "3")
    assert done["outputs"] == {"o0": ["lo", *["container"] * 3]}
    assert shell.json("run", "tasks.py", "catches")["outputs"] == {"o0": "so it is"}


@pytest.mark.slow
def test_an_image_s_own_user_calls_children(
    engine: Engine, registry: Server, project: Project
) -> None:
    """A worker that is not root may use the controller's socket."""
    own = engine.build(f"FROM {engine.imported(rootfs())}\nRUN useradd --uid 4321 bob\nUSER bob\n")
    shell = project(engine, engine.pushed(own, registry.repository("docker/carol") + ":1"))
    done = shell("run", "tasks.py", "boxed_root")
    assert "leaf 1 4321" in done.stdout


def test_a_killed_container_of_a_child_is_retried(shell: Shell, engine: Engine) -> None:
    """It is lost, which uses up none of the task's retries; its caller does not notice."""
    name = f"lost-{os.urandom(4).hex()}"
    with started(shell, name, "calls_waits_once", "waits_once") as command:
        child = actions(shell, name)[1]["name"]
        engine("kill", *engine.containers(f"label=flyte.action={child}"))
        out, errors = command.communicate(timeout=60)
        assert command.returncode == 0 and out.endswith("\n1\n"), errors
    assert "was lost (its container was killed (SIGKILL))" in errors
    assert [each["attempts"] for each in actions(shell, name)] == [1, 2]
    engine.is_rid_of(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "exit_code", "phase"),
    [(signal.SIGINT, 130, "aborted"), (signal.SIGKILL, -9, "failed")],
)
def test_nothing_is_left_of_children(
    shell: Shell, engine: Engine, number: int, exit_code: int, phase: str
) -> None:
    """Ctrl-C ends all containers and processes; after kill -9 they end by themselves."""
    name = f"left-{os.urandom(4).hex()}"
    with started(shell, name, "all_sleep", "sleeps", "sleeps_on_the_host") as command:
        command.send_signal(number)
        assert command.wait(30) == exit_code
    deadline = time.monotonic() + 10
    while engine.containers(f"label=flyte.run={name}", "status=running"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    wait_for_no_sleepers()
    found = actions(shell, name)
    assert [each["phase"] for each in found] == [phase, "aborted", "aborted"]
    shell("run", "tasks.py", "boxed_leaf", "--x", "1")
    engine.is_rid_of(name)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_that_ends_ends_the_run(project: Project, registry: Server, number: int) -> None:
    """The error names Docker, all actions have ended, and no process of the host is left.

    After an end in order, the next command works; a killed engine leaves containers to its next
    start.
    """
    with own_daemon() as daemon:
        engine = Engine(daemon.host)
        image = engine.pushed(engine.imported(rootfs()), registry.repository("docker/own") + ":1")
        shell = project(engine, image, FLYTE_DOCKER_NETWORK="none")
        with started(shell, "daemon", "all_sleep", "sleeps", "sleeps_on_the_host") as command:
            daemon.end(number)
            _, errors = command.communicate(timeout=60)
            assert command.returncode == 3, errors
        assert "Docker could not start a container" in errors and "Traceback" not in errors
        found = actions(shell, "daemon")
        assert found[0]["phase"] == "failed" and all(each["ended"] for each in found)
        assert "Docker could not start a container: " in found[0]["why"]
        wait_for_no_sleepers()
        if number == signal.SIGTERM:
            daemon.start()
            shell("run", "tasks.py", "boxed_leaf", "--x", "1")
            engine.is_rid_of("daemon")
