"""Children in containers, against bare `docker run`s of the same image."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import FLYTE, paired, report
from tests.support.bases import rootfs
from tests.support.engines import Engine, docker_engine
from tests.support.needs import need
from tests.support.registries import serve

TASKS = """import asyncio, time
import flyte

image = "{image}"
fresh = flyte.TaskEnvironment(name="fresh", image=image)
kept = flyte.TaskEnvironment(name="kept", image=image, reusable=flyte.ReusePolicy(replicas=2))
env = flyte.TaskEnvironment(name="main", depends_on=[fresh, kept])


@fresh.task
async def child(x: int) -> int:
    return x + 1


@kept.task
async def again(x: int) -> int:
    return x + 1


@env.task
async def main(task: str, warm: int, n: int) -> float:
    call = {{"child": child, "again": again}}[task]
    await asyncio.gather(*(call(-x) for x in range(1, 1 + warm)))
    began = time.perf_counter()
    await asyncio.gather(*(call(x) for x in range(n)))
    return time.perf_counter() - began
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """A Docker Engine."""
    with docker_engine() as host:
        yield Engine(host)


@pytest.fixture(scope="module")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with Debian's Python, by its digest in a registry."""
    need("registry")
    with serve(tmp_path_factory.mktemp("registry")) as registry:
        pinned = engine.pushed(engine.imported(rootfs()), registry.repository("children") + ":1")
        engine("pull", "--quiet", pinned)
        yield pinned


def seconds(engine: Engine, home: Path, folder: Path, task: str, warm: int, n: int) -> float:
    """Return the seconds of `n` calls of a task, after `warm` others."""
    words = ("--task", task, "--warm", str(warm), "--n", str(n))
    done = subprocess.run(
        [FLYTE, "-of", "json", "run", "boxed.py", "main", *words],
        cwd=folder,
        env={**os.environ, "FLYTE_HOME": str(home), "DOCKER_HOST": engine.host},
        capture_output=True,
        check=True,
    )
    return float(json.loads(done.stdout)["outputs"]["o0"])


def test_children_in_containers(
    benchmark: BenchmarkFixture, tmp_path: Path, home: Path, engine: Engine, image: str
) -> None:
    """A hundred children against as many `docker run`s, as many at once."""
    (tmp_path / "boxed.py").write_text(TASKS.format(image=image))

    def ours() -> float:
        return seconds(engine, home, tmp_path, "child", 0, 100)

    def bare() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            run = ("run", "--rm", "--network", "none", image, "python3", "-c", "pass")
            for done in [pool.submit(engine, *run) for _ in range(100)]:
                done.result()

    ours()
    benchmark.pedantic(ours, rounds=1)
    took, base = paired(ours, bare, 3)
    benchmark.extra_info["ratio"] = took / base
    report(
        "100 children in containers", took / base, "at most 1.5", f"{100 / base:.1f} runs a second"
    )


def test_kept_workers_in_containers(
    benchmark: BenchmarkFixture, tmp_path: Path, home: Path, engine: Engine, image: str
) -> None:
    """A thousand children in two kept containers."""
    (tmp_path / "boxed.py").write_text(TASKS.format(image=image))

    def ours() -> float:
        return seconds(engine, home, tmp_path, "again", 4, 1000)

    benchmark.pedantic(ours, rounds=1)
    speed = 1000 / median(ours() for _ in range(3))
    benchmark.extra_info["ratio"] = 300 / speed
    report(
        "300 a second to kept workers in containers",
        300 / speed,
        "at most 1",
        f"{speed:.0f} a second",
    )
