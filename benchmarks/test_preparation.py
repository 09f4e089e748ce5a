"""Deciding, bundling and extracting a tree of 10,000 files, against the system's own tools."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import FLYTE, forget, make_tree, paired, report
from flyte_build.bundler import bundle, extraction
from flyte_build.cas.statindex import TICK
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.runner.reporter import RunReporter
from flyte_build.settings.configuration import Configuration
from flyte_build.settings.places import Places
from flyte_build.settings.settings import Settings
from flyte_build.workspace.workspace import Workspace

SETTINGS = Settings.configured(Configuration({}), copy_style="all")


def walk(root: str) -> int:
    """Call `stat` for every file, and do nothing else."""
    count, waiting = 0, [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
                    count += 1
    return count


def prepare(root: Path, home: Path) -> FilePlan:
    """Prepare discovery, tree and bundle in this process."""
    stores = Stores(
        RunReporter(), Places(cache=str(home / "cache"), data=str(home / "data"), config="")
    )
    plan = FilePlan(Session(SETTINGS, stores), Workspace.of(str(root), "hello.py"))
    plan.discover()
    plan.resolve()
    return plan


def node_seconds(root: Path, home: Path) -> float:
    """Return the seconds of one command's nodes, without the extraction."""
    done = subprocess.run(
        [FLYTE, "-of", "json", "run", "--copy-style", "all", "hello.py", "hello"],
        cwd=root,
        env={**os.environ, "FLYTE_HOME": str(home)},
        check=True,
        capture_output=True,
    )
    return float(sum(node["seconds"] for node in json.loads(done.stdout)["prepared"]))


def test_nothing_changed(benchmark: BenchmarkFixture, tree: Path, home: Path) -> None:
    """Deciding that nothing needs preparing is compared to a bare walk and `git status`."""
    import gc

    prepare(tree, home)
    gc.disable()  # As the command does.
    benchmark.pedantic(lambda: prepare(tree, home), rounds=5, warmup_rounds=1)
    seconds, base = paired(lambda: prepare(tree, home), lambda: walk(str(tree)), 15)
    gc.enable()
    benchmark.extra_info["ratio"] = seconds / base
    report(
        "no-op, to a bare walk",
        seconds / base,
        "at most 1.5",
        f"{seconds * 1e3:.0f} ms to {base * 1e3:.0f} ms",
    )
    for args in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *args], cwd=tree, check=True)
    try:
        prepare(tree, home)
        quiet = {"cwd": tree, "check": True, "stdout": subprocess.DEVNULL}
        status = partial(subprocess.run, ["git", "status", "-s"], **quiet)
        seconds, base = paired(lambda: prepare(tree, home), status, 10)
    finally:
        shutil.rmtree(tree / ".git")
    report(
        "no-op, to git status",
        seconds / base,
        "at most 3",
        f"{seconds * 1e3:.0f} ms to {base * 1e3:.0f} ms",
    )


def test_first_bundle(benchmark: BenchmarkFixture, tree: Path, home: Path) -> None:
    """A first bundle is compared to `tar | zstd -3`."""

    def ours() -> None:
        node_seconds(tree, home)

    seconds = []

    def fresh() -> None:
        forget(home)
        seconds.append(node_seconds(tree, home))

    benchmark.pedantic(ours, setup=lambda: forget(home), rounds=2)
    _, base = paired(
        fresh,
        lambda: subprocess.run(
            "tar c . | zstd -3 -q > /dev/null", shell=True, cwd=tree, check=True
        ),
        5,
    )
    median = sorted(seconds)[len(seconds) // 2]
    benchmark.extra_info["ratio"] = median / base
    report(
        "first bundle, to tar | zstd -3",
        median / base,
        "at most 1.5",
        f"{median * 1e3:.0f} ms to {base * 1e3:.0f} ms",
    )


def test_extraction(benchmark: BenchmarkFixture, tree: Path, home: Path, tmp_path: Path) -> None:
    """An extraction, verified file by file, is compared to `tar x` of the same files."""
    preparation = prepare(tree, home)
    manifest = preparation.resolve()[preparation.bundle].artifact
    assert manifest is not None
    cache = preparation.session.cache
    made = bundle.read(manifest, cache.blobs)
    subprocess.run(f"tar c . | zstd -3 -q > {tmp_path}/tree.tzst", shell=True, cwd=tree, check=True)
    count = iter(range(1000))

    def ours() -> None:
        folder = cache.extraction(made.tree)
        if os.path.exists(folder):
            os.rename(folder, f"{tmp_path}/ours-{next(count)}")
        extraction.extract(cache, made)

    def theirs() -> None:
        target = tmp_path / f"theirs-{next(count)}"
        target.mkdir()
        subprocess.run(f"zstd -dc {tmp_path}/tree.tzst | tar x -C {target}", shell=True, check=True)

    benchmark.pedantic(ours, rounds=1)
    seconds, base = paired(ours, theirs, 5)
    forget(tmp_path)
    benchmark.extra_info["ratio"] = seconds / base
    report(
        "extraction, to zstd | tar x",
        seconds / base,
        "at most 2",
        f"{seconds * 1e3:.0f} ms to {base * 1e3:.0f} ms",
    )


def test_one_file_edited(benchmark: BenchmarkFixture, tree: Path, home: Path) -> None:
    """Preparing one edited file of many is compared to the no-op.

    A file that was edited within a tick of the clock before is read twice.
    """
    prepare(tree, home)
    edited = tree / "pkg3/sub3/m63.py"
    versions = iter(range(10_000))

    def edit() -> None:
        edited.write_text(f"# {next(versions)}\n" + edited.read_text())
        time.sleep(TICK / 1e9)  # A command takes longer to start.

    benchmark.pedantic(lambda: prepare(tree, home), setup=edit, rounds=3, warmup_rounds=1)
    seconds, base = paired(lambda: prepare(tree, home), lambda: prepare(tree, home), 9, before=edit)
    benchmark.extra_info["ratio"] = seconds / base
    report(
        "one file edited, to the no-op",
        seconds / base,
        "at most 2",
        f"{seconds * 1e3:.0f} ms to {base * 1e3:.0f} ms",
    )


@pytest.mark.skipif(
    "FLYTE_PEER" not in os.environ, reason="FLYTE_PEER names no environment with the official SDK"
)
def test_first_bundle_against_the_official_sdk(
    benchmark: BenchmarkFixture, tree: Path, home: Path, tmp_path: Path
) -> None:
    """A first bundle is compared to one by the official SDK, without the latter's import.

    The tree is the same, and so is `copy_style=all`.
    """
    script = (
        "import asyncio, pathlib, sys, tempfile, time\nfrom flyte._code_bundle.bundle import"
        " build_code_bundle\nbegan ="
        " time.perf_counter()\nasyncio.run(build_code_bundle(from_dir=pathlib.Path(sys.argv[1]),"
        " dryrun=True, copy_style='all'))\nprint(time.perf_counter() - began)\n"
    )
    done = subprocess.run(
        [f"{os.environ['FLYTE_PEER']}/bin/python", "-c", script, str(tree)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"the official SDK's bundler did not run: {done.stderr[-300:]}")
    theirs = float(done.stdout.splitlines()[-1])
    seconds = benchmark.pedantic(
        lambda: node_seconds(tree, home), setup=lambda: forget(home), rounds=1
    )
    report(
        "official SDK's first bundle to ours",
        theirs / seconds,
        "at least 10",
        f"{theirs:.2f} s to {seconds:.2f} s",
    )


@pytest.mark.parametrize("files", [1_000, 10_000, 100_000])
def test_growth(benchmark: BenchmarkFixture, tmp_path: Path, home: Path, files: int) -> None:
    """No-op and first bundle grow with the number of files."""
    make_tree(tmp_path / "tree", files)
    first = node_seconds(tmp_path / "tree", home)
    again = benchmark.pedantic(lambda: node_seconds(tmp_path / "tree", home), rounds=1)
    report(
        f"{files:,} files: first to no-op",
        first / again,
        "linear",
        f"{first:.2f} s, {again * 1e3:.0f} ms",
    )


def test_memory_of_a_large_file(benchmark: BenchmarkFixture, tmp_path: Path, home: Path) -> None:
    """The peak memory of the whole command is measured for a tree with a 500 MB file."""
    (tmp_path / "tree").mkdir()
    make_tree(tmp_path / "tree", 100)
    with open(tmp_path / "tree/large.bin", "wb") as file:
        for _ in range(500):
            file.write(os.urandom(1_000_000))
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL,"
        " stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    args = [sys.executable, "-c", script, FLYTE, "run", "--copy-style", "all", "hello.py", "hello"]
    environment = {**os.environ, "FLYTE_HOME": str(home)}
    done = benchmark.pedantic(
        lambda: subprocess.run(
            args, cwd=tmp_path / "tree", env=environment, capture_output=True, text=True, check=True
        ),
        rounds=1,
    )
    megabytes = int(done.stdout) / 1024
    report(
        "peak memory, a 500 MB file", megabytes / 150, "at most 1 (150 MB)", f"{megabytes:.0f} MB"
    )
