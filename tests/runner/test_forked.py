"""Children in processes that a fork server forks."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from typing import Any

import psutil
import pytest

from flyte_build.runner.engines.fork_servers import can_fork
from flyte_build.runner.worker.preloads import FORKABLE
from tests.support.command import Shell

pytestmark = pytest.mark.skipif(not can_fork(), reason="This system has no pidfd_open(2)")

TASKS = """
import asyncio, os, random, sys, threading
import flyte

env = flyte.TaskEnvironment(name="f", env_vars={"MODE": "slow"})
STAMP = os.urandom(8).hex()

@env.task
async def child(x: int) -> dict[str, str]:
    print("says", x)
    return {
        "parent": str(os.getppid()),
        "group": str(os.getpgid(0) == os.getpid()),
        "stamp": STAMP,
        "random": str(random.random()),
        "mode": os.environ["MODE"],
        "folder": os.getcwd(),
        "threads": str(threading.active_count()),
        "argv": str(sys.argv),
    }

@env.task
async def main(n: int = 4) -> list[dict[str, str]]:
    return list(await asyncio.gather(*(child(x) for x in range(n))))

@env.task
async def overrides() -> list[dict[str, str]]:
    modes = ("slow", "fast", "fast", "slow")
    return [await child.override(env_vars={"MODE": mode})(0) for mode in modes]

@env.task
async def waits(x: int) -> int:
    print("waits", os.getppid(), flush=True)
    while not os.path.exists(os.environ["GO"]):
        await asyncio.sleep(0.01)
    return x

@env.task
async def patient() -> int:
    return sum(await asyncio.gather(*(waits(x) for x in range(6))))
"""


def children(flyte: Shell, task: str, **variables: str) -> list[dict[str, Any]]:
    """Run a task, and return what its children have told."""
    found: list[dict[str, Any]] = flyte.json("run", "forks.py", task, env=variables)["outputs"][
        "o0"
    ]
    return found


@pytest.fixture
def forks(flyte: Shell) -> Shell:
    """A project with tasks that tell about their process."""
    (flyte.project / "forks.py").write_text(TASKS)
    return flyte


def test_a_forked_process_is_as_new(forks: Shell) -> None:
    """The user's module, random numbers, directory and group are its own; the server is shared."""
    found = children(forks, "main")
    for own in ("stamp", "random", "folder"):
        assert len({each[own] for each in found}) == 4
    assert {each["parent"] for each in found} != {str(os.getpid())}
    (shared,) = {(each["parent"], each["group"], each["threads"], each["argv"]) for each in found}
    assert shared[1:] == ("True", "1", "['forks']")


def test_forking_can_be_turned_off(forks: Shell) -> None:
    """With FLYTE_FORK=0 each process is started by the command."""
    started, forked = (children(forks, "main", FLYTE_FORK=value) for value in "01")
    assert len({each["parent"] for each in started}) == 1
    assert [{**each, "parent": ""}.keys() for each in started] == [each.keys() for each in forked]


def test_other_variables_have_another_server(forks: Shell) -> None:
    """A process has its variables from its beginning."""
    found = children(forks, "overrides")
    assert [each["mode"] for each in found] == ["slow", "fast", "fast", "slow"]
    servers = [each["parent"] for each in found]
    assert servers[0] == servers[3] != servers[1] == servers[2]


def test_a_killed_server_is_started_again(forks: Shell) -> None:
    """Its children are lost, or end by themselves; none has failed, and the run goes on."""
    go = forks.project / "go"
    command = forks.start("run", "--env", f"GO={go}", "forks.py", "patient")
    assert command.stdout is not None
    line = command.stdout.readline()
    while "waits" not in line:
        line = command.stdout.readline()
    server = int(line.split()[-1])
    assert "fork_server" in " ".join(psutil.Process(server).cmdline())
    os.kill(server, signal.SIGKILL)
    go.touch()
    output, errors = command.communicate(timeout=60)
    assert command.returncode == 0 and output.endswith("15\n"), errors
    actions = forks.json("get", "run", forks.last_run()["name"])["actions"]
    assert {each["phase"] for each in actions} == {"succeeded"}


COMPUTES = {
    "numpy": "numpy.linalg.inv(numpy.eye(200) * 2).sum()",
    "pandas": "pandas.DataFrame({'a': [1, 1, 2], 'b': [1, 2, 3]}).groupby('a').sum().b.sum()",
    "pyarrow": "pyarrow.compute.sum(pyarrow.array(range(100_000))).as_py()",
    "scipy": "scipy.linalg.det(scipy.linalg.hilbert(3))",
    "sklearn": "LinearRegression().fit([[1], [2], [3]], [2, 4, 6]).predict([[4]])[0]",
    "pydantic": "pydantic.TypeAdapter(list[int]).validate_python(['1', '2'])[1]",
    "requests": "len(requests.Request('GET', 'http://a.example').prepare().url)",
    "yaml": "yaml.safe_load('a: [1, 2]')['a'][1]",
}
MORE = {
    "pyarrow": "import pyarrow.compute",
    "scipy": "import scipy.linalg",
    "sklearn": "from sklearn.linear_model import LinearRegression",
}
IMPORTS = """
import asyncio, sys
import flyte

env = flyte.TaskEnvironment(name="p")
EARLY = "{package}" in sys.modules
import {package}
{more}

@env.task
async def child(x: int) -> tuple[bool, float]:
    return EARLY, float({computes})

@env.task
async def main() -> list[tuple[bool, float]]:
    return [(EARLY, float({computes})), *await asyncio.gather(child(1), child(2))]
"""


@pytest.mark.parametrize("package", FORKABLE)
def test_packages_compute_in_forks(flyte: Shell, package: str) -> None:
    """A package that its caller has imported is there before a forked child imports it."""
    pytest.importorskip(package)
    computes, more = COMPUTES[package], MORE.get(package, "")
    (flyte.project / "packs.py").write_text(
        IMPORTS.format(package=package, more=more, computes=computes)
    )
    root, *forked = flyte.json("run", "packs.py", "main")["outputs"]["o0"]
    assert root[0] is False and [early for early, _ in forked] == [True, True]
    assert [value for _, value in forked] == [pytest.approx(root[1])] * 2


LATE = """
import sys
import flyte

env = flyte.TaskEnvironment(name="l")

@env.task
async def child(x: int) -> bool:
    early = "numpy" in sys.modules
    import numpy
    return early

@env.task
async def main() -> list[bool]:
    return [await child(x) for x in range(3)]
"""


def test_a_server_learns_from_its_children(flyte: Shell) -> None:
    """A package that only a function imports is there for the calls that follow."""
    (flyte.project / "late.py").write_text(LATE)
    assert flyte.json("run", "late.py", "main")["outputs"]["o0"] == [False, True, True]


HARMFUL = """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
safe_load = str
"""


def test_a_package_that_starts_a_thread_is_imported_in_the_fork(flyte: Shell) -> None:
    """The server that has imported it forks no more; another one forks without it."""
    library = flyte.home / "lib/site-packages"
    library.mkdir(parents=True)
    (library / "yaml.py").write_text(HARMFUL)
    (flyte.project / "packs.py").write_text(
        IMPORTS.format(package="yaml", more="", computes="len(yaml.safe_load(1))")
    )
    variables = {"PYTHONPATH": str(library)}
    done = flyte.json("run", "packs.py", "main", env=variables)
    assert done["outputs"]["o0"] == [[False, 1.0]] * 3


MANY = """
import asyncio, os
import flyte

env = flyte.TaskEnvironment(name="m")

@env.task
async def says(x: int) -> int:
    print("says", x)
    return x

@env.task
async def slow(x: int) -> None:
    await asyncio.sleep(600)

@env.task
async def big() -> int:
    return len(os.environ["BIG0"]) + len(os.environ["BIG1"]) + len(os.environ["BIG2"])

@env.task
async def all_say(n: int) -> int:
    return sum(await asyncio.gather(*(says(x) for x in range(n))))

@env.task
async def gives_up(n: int) -> str:
    for number in range(n):
        calls = [asyncio.create_task(slow(x)) for x in range(4)]
        await asyncio.sleep(number * 0.004)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    return "gave up"

@env.task
async def calls_big() -> list[int]:
    return [await big(), await big()]
"""


@pytest.fixture
def many(flyte: Shell) -> Shell:
    """A project whose tasks make many calls."""
    (flyte.project / "many.py").write_text(MANY)
    return flyte


def test_each_says_its_last_words(many: Shell) -> None:
    """The last line that a child prints is in its log, whoever removes its directory."""
    run = many.json("run", "many.py", "all_say", "--n", "200")
    assert run["outputs"]["o0"] == 19900
    actions = many.json("get", "run", run["run"])["actions"][1:]
    logs = many.home / "data/v1/runs" / run["run"] / "actions"
    said = sorted((logs / each["name"] / "log").read_text() for each in actions)
    assert said == sorted(f"says {x}\n" for x in range(200))


def test_children_that_are_given_up_at_once(many: Shell) -> None:
    """A process may be asked to end before it has read its order."""
    assert many.json("run", "many.py", "gives_up", "--n", "15")["outputs"]["o0"] == "gave up"


def test_many_descriptors_and_large_variables(many: Shell) -> None:
    """Descriptors above 1023, and variables that no packet holds, are as good as others."""
    code = (
        "import os, resource, sys;"
        " resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096));"
        " [os.set_inheritable(os.open('/dev/null', 0), True) for _ in range(1100)];"
        f" os.execv({many.program[0]!r}, ['flyte', *sys.argv[1:]])"
    )
    crowded = replace(many, program=(sys.executable, "-c", code))
    large = [part for number in range(3) for part in ("--env", f"BIG{number}={'x' * 90_000}")]
    assert crowded.json("run", *large, "many.py", "calls_big")["outputs"]["o0"] == [270_000] * 2
