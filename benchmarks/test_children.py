"""Calls of tasks by tasks, against bare processes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

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


KEPT = """import asyncio, time
import flyte

policy = flyte.ReusePolicy(replicas=2, concurrency={concurrency})
kept = flyte.TaskEnvironment(name="kept", reusable=policy)
env = flyte.TaskEnvironment(name="main", depends_on=[kept])


@kept.task
async def child(x: int) -> int:
    return x + 1


@env.task
async def main(n: int) -> float:
    await asyncio.gather(*(child(-x) for x in range(1, 5)))
    began = time.perf_counter()
    await asyncio.gather(*(child(x) for x in range(n)))
    return time.perf_counter() - began
"""
PEERS = {
    "ray": """
import time, ray
ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
f = ray.remote(lambda x: x + 1)
ray.get([f.remote(x) for x in range(100)])
began = time.perf_counter()
ray.get([f.remote(x) for x in range(1000)])
print(time.perf_counter() - began)
""",
    "dask": """
import time
from distributed import Client
if __name__ == "__main__":
    client = Client(n_workers=2, threads_per_worker=1, dashboard_address=None)
    client.gather(client.map(abs, range(100)))
    began = time.perf_counter()
    client.gather(client.map(abs, range(1000, 2000)))
    print(time.perf_counter() - began)
""",
}


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


def kept(home: Path, folder: Path, n: int, concurrency: int = 1) -> float:
    """Return the seconds of `n` calls of a reusable environment, once its workers have begun.

    Two workers take `concurrency` of them at once each.
    """
    (folder / "kept.py").write_text(KEPT.format(concurrency=concurrency))
    done = subprocess.run(
        [FLYTE, "-of", "json", "run", "kept.py", "main", "--n", str(n)],
        cwd=folder,
        env={**os.environ, "FLYTE_HOME": str(home)},
        capture_output=True,
        check=True,
    )
    return float(json.loads(done.stdout)["outputs"]["o0"])


def test_kept_workers(benchmark: BenchmarkFixture, tmp_path: Path, home: Path) -> None:
    """Ten times as many calls take ten times as long."""
    kept(home, tmp_path, 10)
    benchmark.pedantic(kept, (home, tmp_path, 1000), rounds=1)
    few, many = (median(kept(home, tmp_path, n) for _ in range(3)) for n in (1000, 10_000))
    benchmark.extra_info["ratio"] = many / few / 10
    report(
        "10,000 calls of kept workers to 10 times 1,000",
        many / few / 10,
        "at most 1.2",
        f"{1000 / few:.0f} and {10_000 / many:.0f} a second",
    )


@pytest.mark.skipif(
    "FLYTE_PEERS" not in os.environ, reason="FLYTE_PEERS names no environment with ray and dask"
)
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("concurrency", [1, 50])
def test_kept_workers_against_peers(
    benchmark: BenchmarkFixture, tmp_path: Path, home: Path, peer: str, concurrency: int
) -> None:
    """1,000 trivial calls through two workers; ours are recorded, and survive a power cut."""
    (tmp_path / "peer.py").write_text(PEERS[peer])
    python = f"{os.environ['FLYTE_PEERS']}/bin/python"

    def theirs() -> float:
        done = subprocess.run(
            [python, "peer.py"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return float(done.stdout.split()[-1])

    kept(home, tmp_path, 10, concurrency)
    benchmark.pedantic(kept, (home, tmp_path, 1000, concurrency), rounds=1)
    own = partial(kept, home, tmp_path, 1000, concurrency)
    ours, base = (median(each() for _ in range(3)) for each in (own, theirs))
    benchmark.extra_info["ratio"] = base / ours
    report(
        f"1,000 calls, {concurrency} at once in a worker, to {peer}",
        base / ours,
        "at least 1",
        f"{1000 / ours:.0f} and {1000 / base:.0f} a second",
    )
