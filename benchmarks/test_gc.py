"""Collecting 100,000 blobs."""

from __future__ import annotations

import time
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import report
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.gc import collect

BLOBS = 100_000


def test_collecting(benchmark: BenchmarkFixture, home: Path) -> None:
    """Collecting a cache of garbage alone is timed."""
    cache = Cache.open(str(home), Counters(), print)

    def fill() -> None:
        for number in range(BLOBS):
            data = b"%d" % number
            Path(cache.blobs.path(Digest.of(data))).write_bytes(data)

    began = 0.0

    def run() -> float:
        nonlocal began
        began = time.perf_counter()
        assert len(collect(cache, 0, dry_run=False).removed) == BLOBS
        return time.perf_counter() - began

    seconds = benchmark.pedantic(run, setup=fill, rounds=1)
    report(
        "gc, blobs a second, to 6,000",
        BLOBS / seconds / 6000,
        "at least 1",
        f"{BLOBS / seconds:,.0f} a second",
    )
