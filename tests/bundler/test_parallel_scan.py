"""A large tree that is all new is packed while it is scanned.

The result is the same as that of scanning first and packing then.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyte_build.bundler import bundle, extraction
from flyte_build.cas.counters import Counters
from flyte_build.errors import FileUnstable, SecretRefused
from tests.support.caches import opened, planned
from tests.support.checkout import CHECKOUT
from tests.support.files import (
    Executable,
    Link,
    as_root,
    clock_moves,
    read_files,
    same,
    write_files,
)
from tests.support.processes import process, run

KEY = b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 64 + b"\n-----END PRIVATE KEY-----\n"


def prepare(folder: Path, root: Path, warm: bool = False) -> tuple[bundle.Bundle, dict[str, int]]:
    """Prepare everything below `root`, with a cache in `folder`.

    `warm` keeps this from being done in one pass.
    """
    counters = Counters()
    with opened(folder, counters=counters) as cache:
        if warm:
            cache.index.save(f"tree 2:{root}", {"nowhere/": (b"", (), 0, 0, b"", {}, {}, ())})
        with planned(cache.root, f"{root}/flow.py", "all", counters) as plan, cache.preparing():
            plan.discover()
            made = plan.resolve()[plan.bundle].artifact
        assert made is not None
        return bundle.read(made, cache.blobs), counters.snapshot()


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """Return a project of 1,200 files and links in several packs."""
    rng = random.Random(7)
    files: dict[str, bytes] = {
        f"d{n % 9}/e{n % 4}/f{n}.py": rng.randbytes(rng.randrange(12_000)) for n in range(1_200)
    }
    files |= {
        "flow.py": b"",
        "run.sh": Executable(b"#!/bin/sh\n"),
        "l": Link(b"flow.py"),
        "big.bin": rng.randbytes(3_000_000),
        "empty": b"",
    }
    write_files(tmp_path / "project", files)
    clock_moves(tmp_path)  # Else what was just written is looked at twice.
    yield tmp_path / "project"


def test_a_bundle_made_in_one_pass_is_the_same(large: Path, tmp_path: Path) -> None:
    """A bundle made in one pass equals one made in two, blob by blob, for the same work.

    It holds exactly the files of the project.
    """
    made, counters = prepare(tmp_path / "one", large)
    assert (made, counters) == prepare(tmp_path / "other", large, warm=True) and len(made.packs) > 3
    with opened(tmp_path / "one") as cache:
        place = extraction.extract(cache, made)
        assert same(files_of(f"{place}/code"), files_of(large)) and not list(cache.blobs.litter())


def files_of(root: str | Path) -> dict[bytes, bytes]:
    """Return the files below `root`."""
    return read_files(root)


def test_what_was_read_in_one_pass_is_remembered(large: Path, tmp_path: Path) -> None:
    """After one pass, the next scan reads nothing, and one edit rebuilds one pack."""
    time.sleep(0.1)
    made, _ = prepare(tmp_path, large)
    again, counters = prepare(tmp_path, large)
    assert again == made and counters["files_read"] == 0
    (large / "d1/e1/f1.py").write_bytes(b"edited")
    edited, counters = prepare(tmp_path, large)
    assert len({*edited.packs} - {*made.packs}) == 1 and counters["bytes_written"] < 4 << 20


def test_a_secret_stops_it_and_no_blob_holds_it(large: Path, tmp_path: Path) -> None:
    """No pack with a secret gets into the store, unless the secret is allowed."""
    (large / "d2/notes.txt").write_bytes(KEY)
    (large / "big.bin").unlink()  # Too large to be packed on the way.
    with pytest.raises(SecretRefused, match=r"d2/notes\.txt"):
        prepare(tmp_path, large)
    with opened(tmp_path) as cache:
        before = {digest for digest, _ in cache.blobs.names()}
        allowed = frozenset(["d2/notes.txt"])
        with (
            planned(cache.root, f"{large}/flow.py", "all", allow_secrets=allowed) as plan,
            cache.preparing(),
        ):
            plan.discover()
            made = plan.resolve()[plan.bundle].record
        assert made and len({*made.refs[3:-1]} - before) == 1


def test_the_second_process_may_die(large: Path, tmp_path: Path) -> None:
    """When the second process dies, the first one reads and packs what that had taken."""
    code = """
import os, sys
from flyte_build.bundler import parallel_scan
from tests.bundler.test_parallel_scan import prepare
from pathlib import Path
fork = os.fork
def dying():  # A process that is killed in the midst of its first pack.
    child = fork()
    if not child:
        os.write = lambda *args: os.kill(os.getpid(), 9)
    return child
os.fork = dying
print(prepare(Path(sys.argv[2]), Path(sys.argv[1]))[0].manifest)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(large), str(tmp_path / "one")],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert done.stdout.strip() == prepare(tmp_path / "other", large, warm=True)[0].manifest


@as_root
def test_it_works_where_no_process_and_no_thread_can_be_started(
    large: Path, tmp_path: Path
) -> None:
    """A limit on processes and threads only makes the scan slower."""
    code = """
import hashlib, os, psutil, resource, sys, threading, zstandard
from flyte_build.bundler import budget, links, parallel_scan  # All is loaded while it can be read.
from flyte_build.workspace import ignore, sensitive
from flyte_build.bundler.scan import Scanner
from flyte_build.bundler.tree import Tree
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
os.setgid(65534)
os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
cache = Cache.open(sys.argv[2], Counters(), print)
scan = Scanner(sys.argv[1], cache.index, Counters(), blobs=cache.blobs).scan_all()
print(Tree(scan.entries()).digest, len(scan.contents.layers))
"""
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "store").mkdir(mode=0o777)
    (tmp_path / "store").chmod(0o777)
    digest, layers = run(code, str(large), str(tmp_path / "store")).split()
    assert digest == prepare(tmp_path / "other", large)[0].tree and int(layers) > 2


@pytest.mark.slow
def test_files_that_change_meanwhile_never_give_a_bundle_that_is_wrong(
    large: Path, tmp_path: Path
) -> None:
    """If a file changes meanwhile, each bundle holds one of the states that the file really had."""
    changer = """
import os, sys
print("changing", flush=True)
n = 0
while True:
    n += 1
    with open(sys.argv[1], "wb") as file:
        file.write(b"%08d" % n * (n % 50))
"""
    with process(changer, str(large / "d0/e0/f0.py")) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "changing\n"
        try:
            for attempt in range(8):
                try:
                    made, _ = prepare(tmp_path / f"cache{attempt}", large)
                except FileUnstable:
                    continue
                with opened(tmp_path / f"cache{attempt}") as cache:
                    place = extraction.extract(cache, made)
                    data = Path(place, "code/d0/e0/f0.py").read_bytes()
                    assert data == data[:8] * (len(data) // 8)
        finally:
            writer.kill()
