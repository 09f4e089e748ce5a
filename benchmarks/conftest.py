"""Support for the benchmarks: trees to work on, and paired timings.

Each benchmark times two operations in turn, in one run, and reports the ratio of their medians as
`extra_info`: absolute times differ between machines, ratios hardly do. `pytest benchmarks
--benchmark-enable` runs them and prints the ratios; `FLYTE_PEER=/path/to/venv` names an environment
in which the official `flyte` SDK is installed, for benchmarks against it.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# For what tests have to offer; last, so that the installed package is measured.
sys.path.append(str(Path(__file__).parent.parent))

FLYTE = os.path.join(os.path.dirname(sys.executable), "flyte")
HELLO = """import flyte

env = flyte.TaskEnvironment(name="hello")


@env.task
def hello(name: str = "World") -> str:
    return f"Hello, {name}!"


@env.task
async def hello_async(name: str = "World") -> str:
    return f"Hello, {name}!"
"""
LINES: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the ratios."""
    terminalreporter.section("ratios")
    for line in LINES:
        terminalreporter.write_line(line)


def report(name: str, ratio: float, goal: str, detail: str) -> None:
    """Add a line to the summary."""
    LINES.append(f"{name:45} {ratio:6.2f} x  (goal: {goal})  {detail}")


def paired(
    ours: Callable[[], object],
    other: Callable[[], object],
    rounds: int,
    before: Callable[[], object] = lambda: None,
) -> tuple[float, float]:
    """Return the median seconds of both, timed in turn after one warm-up each.

    `before` is called before them, and not timed.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for at in range(rounds + 1):
        before()
        for into, call in zip(times, (ours, other), strict=True):
            began = time.perf_counter()
            call()
            if at:
                into.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def command(*args: str, cwd: Path, home: Path) -> Callable[[], object]:
    """Return a function that runs a process, and drops its output."""
    environment = {**os.environ, "FLYTE_HOME": str(home)}

    def run() -> None:
        subprocess.run(
            args,
            cwd=cwd,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    return run


def make_tree(root: Path, files: int) -> None:
    """Write `files` files of about 4.7 kB of Python source each, and a task."""
    rng = random.Random(1)
    stdlib = Path(os.__file__).parent
    text = "".join(path.read_text(errors="replace") for path in sorted(stdlib.glob("*.py")))
    for number in range(files):
        folder = root / f"pkg{number % 20}" / f"sub{number // 20 % 25}"
        folder.mkdir(parents=True, exist_ok=True)
        size = int(rng.expovariate(1 / 4600))
        at = rng.randrange(len(text) - 60_000)
        (folder / f"m{number}.py").write_text(f"# {number}\\n" + text[at : at + size])
    (root / "hello.py").write_text(HELLO)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 files, about 47 MB."""
    root = tmp_path_factory.mktemp("tree")
    make_tree(root, 10_000)
    return root


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A new home."""
    yield tmp_path / "home"
    forget(tmp_path / "home")


def forget(home: Path) -> None:
    """Remove a home, protected directories included."""
    for folder, _, _ in os.walk(home):
        os.chmod(folder, 0o700)
    shutil.rmtree(home, ignore_errors=True)
