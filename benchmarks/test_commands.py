"""Whole commands, against the interpreter's own start and the official SDK."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import FLYTE, HELLO, command, paired, report


@pytest.mark.parametrize(
    ("args", "goal"),
    [
        (["run", "hello.py", "hello", "--name", "World"], 8),
        (["run", "hello.py", "hello_async", "--name", "World"], 11),
        (["--help"], 5),
    ],
    ids=["warm run", "warm run, async", "help"],
)
def test_against_the_interpreters_start(
    benchmark: BenchmarkFixture, tmp_path: Path, home: Path, args: list[str], goal: int
) -> None:
    """A warm command costs a few starts of Python."""
    (tmp_path / "hello.py").write_text(HELLO)
    ours, floor = (
        command(FLYTE, *args, cwd=tmp_path, home=home),
        command(sys.executable, "-I", "-c", "pass", cwd=tmp_path, home=home),
    )
    benchmark.pedantic(ours, rounds=5, warmup_rounds=1)
    seconds, base = paired(ours, floor, 30)
    benchmark.extra_info["ratio"] = seconds / base
    report(
        f"flyte {' '.join(args[:3])}",
        seconds / base,
        f"at most {goal}",
        f"{seconds * 1e3:.0f} ms to {base * 1e3:.0f} ms",
    )


@pytest.mark.skipif(
    "FLYTE_PEER" not in os.environ, reason="FLYTE_PEER names no environment with the official SDK"
)
def test_against_the_official_sdk(benchmark: BenchmarkFixture, tmp_path: Path, home: Path) -> None:
    """A local run is compared to one by the official SDK's command."""
    (tmp_path / "hello.py").write_text(HELLO)
    ours = command(FLYTE, "run", "hello.py", "hello", "--name", "World", cwd=tmp_path, home=home)
    peer = command(
        f"{os.environ['FLYTE_PEER']}/bin/flyte",
        "run",
        "--local",
        "hello.py",
        "hello",
        "--name",
        "World",
        cwd=tmp_path,
        home=home,
    )
    benchmark.pedantic(ours, rounds=3, warmup_rounds=1)
    seconds, theirs = paired(ours, peer, 5)
    benchmark.extra_info["ratio"] = theirs / seconds
    report(
        "official SDK's run --local to our run",
        theirs / seconds,
        "at least 12",
        f"{theirs:.2f} s to {seconds * 1e3:.0f} ms",
    )
