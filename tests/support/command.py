"""The installed `flyte` command as a user types it, and a file of tasks for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

_SESSION = "TEST_SESSION"
os.environ[_SESSION] = os.urandom(8).hex()
FLYTE = os.path.join(os.path.dirname(sys.executable), "flyte")
TASKS = '''
import asyncio, os, subprocess, sys, time
import flyte

env = flyte.TaskEnvironment(name="t", env_vars={"FROM_ENV": "env", "BOTH": "env"})

@env.task
def hello(name: str = "World") -> str:
    """Greet somebody.

    Args:
        name: Who is greeted.
    """
    return f"Hello, {name}!"

@env.task
async def hello_async(name: str) -> str:
    await asyncio.sleep(0)
    return f"Hello, {await child(name)}!"

@env.task
async def child(name: str) -> str:
    return name.upper()

@env.task
def fails() -> None:
    print("before", flush=True)
    raise ValueError("no [good]")

@env.task
def ends(code: int) -> None:
    os._exit(code)

@env.task
def exits() -> None:
    sys.exit(3)

@env.task
def killed() -> None:
    os.kill(os.getpid(), 9)

@env.task
def recurses() -> int:
    return recurses.func() + 1

@env.task
def returns_wrong() -> int:
    return "one"

@env.task(timeout=0.3)
def slow() -> None:
    time.sleep(60)

@env.task
def for_ever() -> None:
    subprocess.Popen(["sleep", "987654"])
    subprocess.Popen(["sleep", "987654"], start_new_session=True)
    print("started", flush=True)
    time.sleep(600)

@env.task
def stubborn() -> None:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("started", flush=True)
    while True:
        time.sleep(600)

@env.task(timeout=0.3)
def chatty() -> None:
    while True:
        os.write(1, b"x" * 99 + b"\\n")

@env.task(timeout=0.3)
def silent() -> None:
    os.close(1)
    os.close(2)
    time.sleep(600)

@env.task(retries=flyte.RetryStrategy(1, flyte.Backoff(600)))
def patient() -> None:
    raise RuntimeError("again")

@env.task
def leaves_child() -> int:
    subprocess.Popen(["sleep", "987654"])
    return 1

@env.task
def closes() -> int:
    os.close(1)
    os.close(2)
    return 5

@env.task
def prints(size: int) -> int:
    line = b"x" * 99 + b"\\n"
    for _ in range(size // 100):
        os.write(1, line)
    return size

@env.task
def binary() -> None:
    os.write(1, bytes(range(256)) + b"\\x1b[31mred\\x1b[0m")

@env.task(retries=2)
def flaky(path: str) -> int:
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 3:
        raise RuntimeError("again")
    return os.path.getsize(path)

@env.task
def variables(names: list[str]) -> list[str]:
    return [os.environ.get(name, "-") for name in names]

@env.task
def places() -> dict[str, str]:
    open("out.txt", "w").write("x")
    return {"cwd": os.getcwd(), "file": os.path.abspath(__file__)}

@env.task
def vandal() -> str:
    with open(__file__, "a") as file:
        file.write("# changed")
    return "changed"

@env.task
def reads(path: str) -> str:
    return open(path).read()

@env.task
def dynamic(name: str) -> str:
    return __import__("importlib").import_module(name).VALUE
'''


@dataclass
class Shell:
    """A runner of `flyte` in a project's directory, with its own home and with `variables`."""

    project: Path
    home: Path
    variables: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = (FLYTE,)

    @property
    def environment(self) -> dict[str, str]:
        usual = {
            name: value for name, value in os.environ.items() if not name.startswith("FLYTE_TEST_")
        }
        return {**usual, "FLYTE_HOME": str(self.home), "HOME": str(self.home), **self.variables}

    def __call__(
        self,
        *args: str,
        exit_code: int | None = 0,
        env: dict[str, str] | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.program, *args],
            cwd=self.project,
            env={**self.environment, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        assert exit_code is None or done.returncode == exit_code, done.stdout + done.stderr
        assert "flyte_build" not in done.stderr, "a traceback of ours"
        return done

    def json(self, *args: str, exit_code: int = 0, env: dict[str, str] | None = None) -> Any:
        return json.loads(self("-of", "json", *args, exit_code=exit_code, env=env).stdout)

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.program, *args],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def last_run(self) -> dict[str, Any]:
        runs = self.json("get", "run", "--limit", "1")
        assert isinstance(runs[0], dict)
        return runs[0]


def states(result: dict[str, Any]) -> dict[str, str]:
    return {node["kind"]: node["state"] for node in result["prepared"]}


def sleepers() -> list[int]:
    """Return the sleeping processes that tasks of this test session have left behind.

    Other sessions may run at the same time.
    """
    found = []
    for process in psutil.process_iter(["cmdline", "status", "environ"]):
        ours = (process.info["environ"] or {}).get(_SESSION) == os.environ[_SESSION]
        if (
            ours
            and process.info["cmdline"] == ["sleep", "987654"]
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ):
            found.append(process.pid)
    return found


def wait_for_no_sleepers() -> None:
    psutil.wait_procs(
        [psutil.Process(pid) for pid in sleepers() if psutil.pid_exists(pid)], timeout=10
    )
    assert sleepers() == []
