"""Calls of tasks by tasks, against bare processes."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import FLYTE, command, paired, report

CHILDREN = """import asyncio
import flyte

env = flyte.TaskEnvironment(name="many")


@env.task
async def child(x: int) -> int:
    return x + 1


@env.task
async def main(n: int) -> int:
    return sum(await asyncio.gather(*(child(x) for x in range(n))))
"""
TABLES = """import asyncio
import flyte
import numpy, pandas

env = flyte.TaskEnvironment(name="tables")


@env.task
async def child(x: int) -> float:
    return float(pandas.Series(numpy.arange(x + 1)).sum())


@env.task
async def main(n: int) -> float:
    return sum(await asyncio.gather(*(child(x) for x in range(n))))
"""


def forks(path: Path, n: int) -> None:
    """Fork `n` bare processes, one after another, and record each in a durable database."""
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE ended(id INTEGER, code INTEGER)"
    )
    for _ in range(n):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        database.execute("INSERT INTO ended VALUES(?,?)", os.waitpid(pid, 0))
    database.close()


def test_fresh_processes(benchmark: BenchmarkFixture, tmp_path: Path, home: Path) -> None:
    """A child in a process of its own costs a few bare forks with a write each."""
    (tmp_path / "many.py").write_text(CHILDREN)
    n = 1000
    all, none = (
        command(FLYTE, "run", "many.py", "main", "--n", str(each), cwd=tmp_path, home=home)
        for each in (n, 0)
    )
    none()
    benchmark.pedantic(all, rounds=1)
    seconds, base = paired(all, lambda: forks(tmp_path / "ended.sqlite", n), 3)
    benchmark.extra_info["ratio"] = seconds / base
    report(
        "1,000 children in fresh processes",
        seconds / base,
        "at most 5",
        f"{n / seconds:.0f} a second, bare forks {n / base:.0f}",
    )


def test_processes_with_large_packages(
    benchmark: BenchmarkFixture, tmp_path: Path, home: Path
) -> None:
    """Packages are imported once for all children, not once in each."""
    pytest.importorskip("pandas")
    (tmp_path / "many.py").write_text(CHILDREN)
    (tmp_path / "tables.py").write_text(TABLES)
    with_tables, without = (
        command(FLYTE, "run", f"{name}.py", "main", "--n", "100", cwd=tmp_path, home=home)
        for name in ("tables", "many")
    )
    once = command(sys.executable, "-c", "import numpy, pandas", cwd=tmp_path, home=home)
    once()
    without()
    benchmark.pedantic(with_tables, rounds=1)
    seconds, imported = paired(with_tables, once, 3)
    plain, _ = paired(without, once, 3)
    goal = 1.3 * imported + plain
    benchmark.extra_info["ratio"] = seconds / goal
    report(
        "100 children that import numpy and pandas",
        seconds / goal,
        "at most 1",
        f"{seconds:.2f} s; one import {imported:.2f} s, 100 trivial children {plain:.2f} s",
    )
