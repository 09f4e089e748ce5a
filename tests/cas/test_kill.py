"""The store survives kill -9 at every step: everything readable is right, and work goes on.

This file is also the program that is killed. For each scenario one process loads everything, counts
the system calls that the scenario makes, and then forks a child that kills itself before the N-th
of them, for many N, over and over on one store; after each death it checks the store.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import pytest

from flyte_build.bundler import bundle, extraction, packs
from flyte_build.bundler.identity import blobs_of
from flyte_build.bundler.index import publish_index
from flyte_build.bundler.marker import find
from flyte_build.bundler.scan import Scanner
from flyte_build.bundler.tree import Tree
from flyte_build.cas import gc
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import key
from flyte_build.cas.records import Record
from flyte_build.errors import BlobCorrupt
from tests.support.caches import record_bundle
from tests.support.checkout import CHECKOUT

pytestmark = pytest.mark.slow

KILLS = 60  # For each scenario.
SCENARIOS = ("begin", "put", "bundle", "extract", "collect", "quarantine", "damaged")


def must_not_say(sentence: str) -> None:
    """Fail: a kill never leaves damage that the store has to report."""
    raise AssertionError(sentence)


def files(root: str, generation: int) -> None:
    """Write a small project; each generation has its own contents, file and link."""
    os.makedirs(f"{root}/pkg", exist_ok=True)
    for n in range(4):
        with open(f"{root}/pkg/m{n}.py", "w") as file:
            file.write(f"{generation if n < 2 else 0} {n}\n" * 50)
    with open(f"{root}/only{generation % 3}.py", "w") as file:
        file.write("x")
    if not os.path.islink(f"{root}/link"):
        os.symlink("pkg/m0.py", f"{root}/link")


def prepare(cache: Cache, root: str) -> bundle.Bundle:
    """Scan, pack, record and label a bundle."""
    with cache.preparing():
        scan = Scanner(root, cache.index, Counters()).scan_all()
        tree = Tree(scan.entries())
        packer = packs.Packer(f"{root}/".__add__, scan.contents, Counters())
        layers = []
        for part in packs.cut(tree.sizes()):
            with cache.blobs.batch() as batch:
                layers.append(packer.pack([tree.entries[at] for at in part], batch))
        with cache.blobs.batch() as batch:
            made = bundle.write(tree, layers, batch)
        record_bundle(cache, made, "bundle:killed")
    return made


def put(cache: Cache, root: str, generation: int) -> None:
    """Put blobs alone and in a batch, in pieces, a record over them, and a lease."""
    with cache.preparing():
        one = cache.blobs.put(b"one %d" % generation * 1000)
        with cache.blobs.batch() as batch:
            two = batch.add(b"two %d" % generation)
            with batch.writer() as writer:
                writer.write(b"three")
                writer.write(b"%d" % generation * 70_000)
                three = writer.finish()
        cache.records.add(Record(key("k", 1, {"n": generation}), "k", one, (one, two, three), {}))
        lease = cache.lease([one, two])
    cache.records.set_last("label", key("k", 1, {"n": generation}))
    publish_index(cache)
    lease.release()


def extract(cache: Cache, root: str, generation: int) -> None:
    """Extract a bundle in the place of an extraction that someone changed."""
    with cache.preparing():
        made = prepare_again(cache)
        if generation % 2 and os.path.exists(f"{cache.extraction(made.tree)}/complete"):
            os.unlink(f"{cache.extraction(made.tree)}/complete")
        extraction.extract(cache, made)


def prepare_again(cache: Cache) -> bundle.Bundle:
    """Return the bundle that was recorded last."""
    record = cache.records.last("bundle:killed")
    assert record
    return bundle.read(record.artifact, cache.blobs)


def collect(cache: Cache, root: str, generation: int) -> None:
    """Collect everything but one lease's blob, extractions included."""
    with cache.preparing():
        lease = cache.lease([Digest.of(b"kept")])
    gc.collect(cache, 0, False)
    assert cache.blobs.has(Digest.of(b"kept"))
    lease.release()


def quarantine(cache: Cache, root: str, generation: int) -> None:
    """Read a bad blob, and put it again."""
    digest = Digest.of(b"will be bad")
    try:
        cache.blobs.read(digest)
    except BlobCorrupt:
        pass
    cache.blobs.put(b"will be bad")


def nothing(cache: Cache, root: str, generation: int) -> None:
    """Only open the cache."""
    assert len(cache.secret) == 32


def before(scenario: str, cache_folder: str, root: str, generation: int) -> None:
    """Set the scenario up; this part is never killed."""
    if scenario == "begin":
        shutil.rmtree(cache_folder, ignore_errors=True)
    elif scenario == "damaged":
        with open(f"{cache_folder}/v1/cache.sqlite", "r+b") as file:
            file.write(b"damaged")
    elif scenario in ("bundle", "extract", "collect", "quarantine"):
        files(root, generation)
        cache = Cache.open(cache_folder, Counters(), must_not_say)
        if scenario in ("extract", "collect"):
            made = prepare(cache, root)
            if scenario == "collect":
                extraction.extract(cache, made)
                cache.blobs.put(b"kept")
                put(cache, root, generation)
        if scenario == "quarantine":
            path = cache.blobs.path(cache.blobs.put(b"will be bad"))
            os.chmod(path, 0o644)
            with open(path, "wb") as file:
                file.write(b"is bad")
        cache.database.close()


WORK: dict[str, Callable[[Cache, str, int], object]] = {
    "begin": nothing,
    "put": put,
    "bundle": lambda cache, root, generation: prepare(cache, root),
    "extract": extract,
    "collect": collect,
    "quarantine": quarantine,
    "damaged": put,
}


class Steps:
    """Counter of this process's calls into the system, SQLite and files.

    It kills the process before call number `deadly`.
    """

    MODULES = frozenset({"posix", "fcntl", "_io", "io", "sqlite3", "_sqlite3"})

    def __init__(self, deadly: int) -> None:
        self.count, self.deadly = 0, deadly

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            owner = (
                getattr(argument, "__module__", None)
                or type(getattr(argument, "__self__", None)).__module__
            )
            if owner in self.MODULES:
                self.step()

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count steps that are not calls from Python, such as those inside of `shutil.rmtree`."""
        if event.startswith(("sqlite3.", "shutil.")):
            self.step()

    def step(self) -> None:
        """Count a step, and die if it is the deadly one."""
        self.count += 1
        if self.count == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)


def child(work: Callable[[], object], deadly: int) -> tuple[int, int]:
    """Run `work` in a fork that dies at step `deadly`; return its wait status and step count.

    The count is 0 if it died.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            steps = Steps(deadly)
            sys.addaudithook(steps.audit)
            sys.setprofile(steps)
            work()
            sys.setprofile(None)
            os.write(write_end, b"%d" % steps.count)
            code = 0
        except BaseException:
            import traceback

            sys.setprofile(None)
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(write_end)
    _, status = os.waitpid(pid, 0)
    count = os.read(read_end, 100)
    os.close(read_end)
    return status, int(count or 0)


def check(folder: str, said: Callable[[str], None]) -> None:
    """Check that everything readable is right."""
    cache = Cache.open(folder, Counters(), said)
    names = dict(cache.blobs.names())
    for digest in names:
        with open(cache.blobs.path(digest), "rb") as file:
            data = file.read()
        # `before` wrote the latter.
        assert hashlib.sha256(data).hexdigest() == digest.hex or data == b"is bad", digest
    for record in cache.records.all():
        assert all(
            map(cache.blobs.has, blobs_of(record) if record.kind == "bundle" else record.refs)
        )
    for _, record in cache.records.labelled("bundle"):
        made = bundle.read(record.artifact, cache.blobs)
        tree = bundle.read_tree(made, cache.blobs)
        if place := find(cache, made.tree):
            assert extraction.damage(place, tree) == "", place
    for name in os.listdir(cache.extractions):
        assert name.startswith((".extracting-", ".doomed-")) or len(name) == 64, name
    assert cache.leased() == set()
    assert cache.database.execute("PRAGMA quick_check")[0] == ("ok",)
    cache.database.close()


def main(scenario: str, folder: str, kills: int) -> None:
    """Kill the scenario at `kills` of its steps, and check after each."""
    import psutil  # noqa: F401  # All that the children need is loaded once, here.
    import zstandard  # noqa: F401  # The same.

    from flyte_build.workspace import ignore, sensitive  # noqa: F401  # The same.

    store, root = f"{folder}/cache", f"{folder}/project"
    os.makedirs(root)
    said: list[str] = []
    may_say = said.append if scenario == "damaged" else must_not_say
    Cache.open(store, Counters(), must_not_say).database.close()

    def once(generation: int, deadly: int) -> tuple[int, int]:
        before(scenario, store, root, generation)

        def work() -> None:
            cache = Cache.open(store, Counters(), may_say)
            WORK[scenario](cache, root, generation)
            cache.database.close()

        return child(work, deadly)

    # Done here first: what a child has to import would be steps that the next need not make.
    before(scenario, store, root, 0)
    cache = Cache.open(store, Counters(), may_say)
    WORK[scenario](cache, root, 0)
    gc.collect(cache, 1000, False)
    cache.database.close()
    check(store, may_say)
    steps = died = 0
    # The first times read more, since files that were just written are not trusted.
    for generation in (1, 2, 3):
        status, steps = once(generation, 0)
        assert status == 0 and steps > 10, (status, steps)
    for generation, deadly in enumerate(spread(steps, kills), 4):
        status, _ = once(generation, deadly)
        assert status in (0, signal.SIGKILL), status
        died += status == signal.SIGKILL
        check(store, may_say)
        # What a kill left is collected, and all of the work succeeds on what is left.
        if generation % 10 == 0:
            status, _ = once(generation, 0)
            assert status == 0
            cache = Cache.open(store, Counters(), may_say)
            gc.collect(cache, 1000, False)
            assert not list(cache.blobs.litter()) and all(
                len(name) == 64 for name in os.listdir(cache.extractions)
            )
            assert os.listdir(f"{cache.folder}/leases") == []
            cache.database.close()
    cache = Cache.open(store, Counters(), may_say)
    assert cache.database.execute("PRAGMA integrity_check")[0] == ("ok",)
    print(died, steps)


def spread(steps: int, kills: int) -> Iterable[int]:
    """Return the steps to die at: all of them if they are few, else evenly spread."""
    return (
        range(1, steps + 1)
        if steps <= kills
        else sorted({1 + at * (steps - 1) // (kills - 1) for at in range(kills)})
    )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_everything_is_right_after_a_kill(scenario: str) -> None:
    """Everything is right after a kill at any step, and work goes on.

    Blobs match their digests, records are complete, and extractions are whole.
    """
    folder = tempfile.mkdtemp(prefix="flyte-kill-")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.cas.test_kill", scenario, folder, str(KILLS)],
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
        )
        assert done.returncode == 0, done.stderr
        died, steps = map(int, done.stdout.split())
        assert died >= min(steps, KILLS) * 0.8 and died >= 15, done.stdout
    finally:
        subprocess.run(["chmod", "-R", "u+w", folder], check=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
