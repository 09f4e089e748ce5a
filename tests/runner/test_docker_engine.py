"""The `docker` engine: tasks in containers of images that do not contain flyte."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.bases import rootfs
from tests.support.command import Shell
from tests.support.engines import Engine
from tests.support.registries import Server

TASKS = """
import os, signal, subprocess, sys, time
import flyte

env = flyte.TaskEnvironment(name="c", image="{image}", env_vars={{"COLOUR": "red"}})
small = flyte.TaskEnvironment(name="s", image="{image}", resources=flyte.Resources(cpu=0.5, memory="64Mi", shm="32Mi"))
private = flyte.TaskEnvironment(
    name="p", image="{image}", secrets=[flyte.Secret("token", as_env_var="TOKEN"), flyte.Secret("key", group="db", mount="/etc/secrets")]
)

@env.task
def hello(name: str = "World") -> str:
    print("out", flush=True)
    print("err", file=sys.stderr, flush=True)
    return f"Hello, {{name}}!"

@env.task
def place() -> dict[str, str]:
    with open("data.txt") as file:
        data = file.read()
    here, uid = os.environ.get("HERE", ""), str(os.getuid())
    return {{"data": data, "python": sys.executable, "uid": uid, "colour": os.environ["COLOUR"], "here": here}}

@env.task
def writes(path: str) -> str:
    with open(path, "w") as file:
        file.write("x")
    return path

@env.task
def fails() -> None:
    raise ValueError("no")

@env.task
def ends(code: int) -> None:
    os._exit(code)

@env.task
def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

@env.task(timeout=1)
def slow() -> None:
    time.sleep(60)

@env.task
def waits(marker: str) -> None:
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    print("waiting", flush=True)
    try:
        time.sleep(600)
    finally:
        print("cleaned up", flush=True)

@env.task(retries=1)
def flaky() -> str:
    seen = os.path.exists("../seen")
    open("../seen", "w").close()
    if not seen:
        raise ValueError("first")
    return "second"

@small.task
def eats() -> None:
    held = []
    while True:
        held.append(bytearray(1 << 20))

@small.task
def limits() -> dict[str, str]:
    found = {{}}
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if os.path.exists(name):
            found["memory"] = open(name).read().strip()
    stat = os.statvfs("/dev/shm")
    return {{**found, "shm": str(stat.f_blocks * stat.f_frsize)}}

@private.task
def secrets() -> dict[str, str]:
    with open("/etc/secrets/key") as file:
        return {{"variable": os.environ["TOKEN"], "file": file.read()}}

@env.task
def online() -> list[str]:
    return sorted(os.listdir("/sys/class/net"))
"""


@pytest.fixture(scope="module")
def image(engine: Engine, registry: Server) -> str:
    """An image with Debian's Python, by its digest in the registry."""
    return engine.pushed(engine.imported(rootfs()), registry.repository("docker/python") + ":1")


Project = Callable[[str], Shell]


@pytest.fixture
def project(engine: Engine, tmp_path: Path) -> Project:
    """A factory of projects whose tasks run in containers of an image."""

    def make(image: str) -> Shell:
        folder = tmp_path / "project"
        folder.mkdir()
        (folder / "tasks.py").write_text(TASKS.format(image=image))
        (folder / "data.txt").write_text("some data")
        return Shell(
            folder,
            tmp_path / "home",
            {
                "DOCKER_HOST": engine.host,
                "FLYTE_RUN_ENGINE": "docker",
                "FLYTE_RUN_COPY_STYLE": "all",
            },
        )

    return make


@pytest.fixture
def shell(project: Project, image: str) -> Shell:
    """A project whose tasks run in containers of the image with Debian's Python."""
    return project(image)


def test_a_task_runs_in_an_image_that_never_heard_of_us(shell: Shell) -> None:
    """In an image without flyte, a task's output is shown, and its result is the command's."""
    done = shell("run", "tasks.py", "hello", "--name", "you")
    assert done.stdout == "out\nHello, you!\n"
    assert "err\n" in done.stderr
    log = shell("get", "logs", shell.last_run()["name"]).stdout
    # The engine does not say which of two streams was first.
    assert sorted(log) == sorted("out\nerr\n")


def test_the_code_and_its_data_are_there_and_nothing_of_this_machine(shell: Shell) -> None:
    """A container has the bundle, the task's variables and its own Python, and nothing else.

    In particular, it has no variables of this machine.
    """
    found = shell.json("run", "-e", "COLOUR=blue", "tasks.py", "place", env={"HERE": "yes"})[
        "outputs"
    ]["o0"]
    assert found == {
        "data": "some data",
        "python": "/usr/bin/python3",
        "uid": "0",
        "colour": "blue",
        "here": "",
    }


def test_a_file_that_only_the_project_has_is_named(shell: Shell) -> None:
    """The error about a file that is only in the project names the remedy."""
    errors = shell("run", "--copy-style", "loaded_modules", "tasks.py", "place", exit_code=1).stderr
    assert (
        "data.txt is in the project, but not in the bundle" in errors
        and 'include=["data.txt"]' in errors
    )


def test_the_code_cannot_be_changed(shell: Shell) -> None:
    """The code is read-only, since other runs share it."""
    done = shell("run", "tasks.py", "writes", "--path", "/opt/flyte/code/tasks.py", exit_code=1)
    assert "Read-only file system" in done.stderr
    assert "Files and directories of the bundle are read-only." in done.stderr
    shell("run", "tasks.py", "writes", "--path", "own.txt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "exit_code", "kind", "words"),
    [
        ("fails", 1, "ValueError", "no"),
        ("killed", 1, "RuntimeSystemError", "was killed (SIGKILL)"),
        ("slow", 6, "MaxRuntimeExceededError", "longer than its timeout of 1 s"),
        ("eats", 1, "OOMError", "more than its 64 MiB of memory"),
    ],
)
def test_how_it_ended_is_told_apart(
    shell: Shell, engine: Engine, task: str, exit_code: int, kind: str, words: str
) -> None:
    """An exception, a signal, a timeout and too little memory are distinguished."""
    document = shell.json("run", "tasks.py", task, exit_code=exit_code)
    assert (document["error"]["type"], words in document["error"]["message"]) == (
        kind,
        True,
    ), document
    engine.is_rid_of(document["run"])


def test_an_exit_code_alone_is_no_success(shell: Shell) -> None:
    """A container that ends with 0 and without a result has failed."""
    assert (
        "without a result"
        in shell.json("run", "tasks.py", "ends", "--code", "0", exit_code=1)["error"]["message"]
    )
    assert (
        "exit code 5"
        in shell.json("run", "tasks.py", "ends", "--code", "5", exit_code=1)["error"]["message"]
    )


def test_it_is_tried_again(shell: Shell) -> None:
    """Each attempt has its own container."""
    assert shell.json("run", "tasks.py", "flaky")["outputs"] == {"o0": "second"}


def test_resources_are_kept(shell: Shell) -> None:
    """A task has the declared memory and shared memory."""
    assert shell.json("run", "tasks.py", "limits")["outputs"]["o0"] == {
        "memory": str(64 << 20),
        "shm": str(32 << 20),
    }


def test_secrets_are_variables_or_files_and_stand_nowhere_else(
    shell: Shell, tmp_path: Path
) -> None:
    """Secrets are variables or files, and are in no file of the run; a missing one is named."""
    values = {"TOKEN": "se-same-one", "DB_KEY": "se-same-two"}
    found = shell.json("run", "tasks.py", "secrets", env=values)
    assert found["outputs"]["o0"] == {"variable": "se-same-one", "file": "se-same-two"}
    action = next((tmp_path / "home").rglob(f"runs/{found['run']}/action.json"))
    assert b"se-same" not in action.read_bytes()
    missing = shell("run", "tasks.py", "secrets", exit_code=3, env={"TOKEN": "x"})
    assert "The secret 'key' is not set" in missing.stderr and "DB_KEY" in missing.stderr


def test_the_network_is_the_configured_one(shell: Shell) -> None:
    """The configured network is used, and `none` leaves the loopback device alone."""
    assert shell.json("run", "tasks.py", "online", env={"FLYTE_DOCKER_NETWORK": "none"})["outputs"][
        "o0"
    ] == ["lo"]
    assert "eth0" in shell.json("run", "tasks.py", "online")["outputs"]["o0"]


@pytest.mark.slow
def test_an_image_s_own_user_runs_the_task(
    engine: Engine, registry: Server, project: Project
) -> None:
    """The image's own user can write the result and the working directory."""
    base = engine.imported(rootfs())
    own = engine.build(
        f'FROM {base}\nRUN useradd --uid 4321 bob\nUSER bob\nENTRYPOINT ["/bin/false"]\n'
    )
    shell = project(engine.pushed(own, registry.repository("docker/bob") + ":1"))
    assert shell.json("run", "tasks.py", "place")["outputs"]["o0"]["uid"] == "4321"
    shell("run", "tasks.py", "writes", "--path", "own.txt")


@pytest.mark.slow
def test_an_image_without_python_is_named(
    engine: Engine, registry: Server, project: Project
) -> None:
    """The error about an image without Python is about the image."""
    base = engine.imported(rootfs())
    own = engine.build(f"FROM {base}\nRUN rm /usr/bin/python3\n")
    shell = project(engine.pushed(own, registry.repository("docker/bare") + ":1"))
    assert (
        "has no python3 on its PATH"
        in shell.json("run", "tasks.py", "hello", exit_code=1)["error"]["message"]
    )


@contextmanager
def waiting(shell: Shell, engine: Engine) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a run whose task waits in its container; yield the command's process and its name."""
    name = f"waits-{os.urandom(4).hex()}"
    with shell.start("run", "--name", name, "tasks.py", "waits", "--marker", "x") as started:
        deadline = time.monotonic() + 30
        while not engine.containers("status=running", f"label=flyte.run={name}"):
            assert time.monotonic() < deadline and started.poll() is None
            time.sleep(0.1)
        while "waiting" not in shell("get", "logs", name).stdout:
            time.sleep(0.1)
        yield started, name
        started.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "exit_code", "phase"),
    [(signal.SIGINT, 130, "aborted"), (signal.SIGKILL, -9, "failed")],
)
def test_nothing_is_left_running(
    shell: Shell, engine: Engine, number: int, exit_code: int, phase: str
) -> None:
    """No container outlives Ctrl-C; after kill -9 it ends, and the next command removes it."""
    with waiting(shell, engine) as (started, name):
        started.send_signal(number)
        assert started.wait(timeout=20) == exit_code
        deadline = time.monotonic() + 10
        while engine.containers(f"label=flyte.run={name}", "status=running"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    shell("run", "tasks.py", "hello")
    engine.is_rid_of(name)
    assert shell.json("get", "run", name)["phase"] == phase


def test_abort_reaches_the_container(shell: Shell, engine: Engine) -> None:
    """An abort lets the task's `finally` run."""
    with waiting(shell, engine) as (started, name):
        shell("abort", "run", name)
        assert started.wait(timeout=20) == 5
    engine.is_rid_of(name)
    assert "cleaned up" in shell("get", "logs", name).stdout


def test_without_an_engine_the_error_says_so(shell: Shell) -> None:
    """A missing engine is an error with a hint."""
    done = shell(
        "run", "tasks.py", "hello", exit_code=3, env={"DOCKER_HOST": "unix:///nowhere/docker.sock"}
    )
    assert (
        "Cannot reach Docker" in done.stderr
        and "DOCKER_HOST" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_code_beside_the_project_comes_into_containers(shell: Shell, image: str) -> None:
    """Code beside the project is found by the bundle's import roots in a container.

    The path of the image, or of this machine, does not matter.
    """
    beside = shell.project.parent / "beside" / "core"
    beside.mkdir(parents=True)
    (beside / "__init__.py").write_text(
        "import pathlib\nTEXT = (pathlib.Path(__file__).parent / 'a.txt').read_text()\n"
    )
    (beside / "a.txt").write_text("from beside")
    flow = (
        f'import flyte, core\nenv = flyte.TaskEnvironment("b", image="{image}")\n\n@env.task\ndef'
        " where() -> list[str]:\n"
    )
    (shell.project / "beside.py").write_text(flow + "    return [core.TEXT, core.__file__]\n")
    done = shell.json("run", "beside.py", "where", env={"PYTHONPATH": str(beside.parent)})
    assert done["outputs"] == {
        "o0": ["from beside", "/opt/flyte/code/.flyte-roots/0/core/__init__.py"]
    }
