"""A limited cache: which records are evicted, on request and automatically."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyte_build.bundler import extraction
from flyte_build.cas import gc
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import key
from flyte_build.cas.eviction import evict
from flyte_build.cas.gc import SpaceLimits
from flyte_build.cas.records import Use
from flyte_build.cas.verify import verify_blobs
from tests.cas.test_gc import DAY, PREPARE, blobs, removed, used
from tests.support.caches import make_bundle, opened, record_blob
from tests.support.command import Shell
from tests.support.files import as_root, mounted, temporary, write_files
from tests.support.processes import process

DIGESTS = [Digest.of(b"%d" % n) for n in range(6)]
uses = st.lists(
    st.tuples(st.integers(0, 4), st.sets(st.integers(0, 5), max_size=4)), max_size=8
).map(
    lambda chosen: [
        (key("t", 1, {"n": at}), when, tuple(DIGESTS[n] for n in sorted(refs)))
        for at, (when, refs) in enumerate(chosen)
    ]
)


def taken(uses: list[Use], sizes: dict[Digest, int], pinned: set[Digest]) -> int:
    """Return the space that these records and the pinned things take."""
    return sum(sizes[ref] for ref in pinned.union(*(refs for _, _, refs in uses)))


@settings(max_examples=300)
@given(
    uses,
    st.lists(st.integers(0, 3), min_size=6, max_size=6),
    st.sets(st.sampled_from(DIGESTS), max_size=3),
    st.integers(0, 12),
)
def test_what_is_given_up_is_least_recent_and_no_more_than_needed(
    uses: list[Use], amounts: list[int], pinned: set[Digest], target: int
) -> None:
    """The least recently used records are evicted, and no more of them than needed.

    The rest fits or is pinned, and all that stays and takes space was used as recently as what is
    evicted. If everything fits, everything stays.
    """
    sizes = dict(zip(DIGESTS, amounts, strict=True))
    gone, left = evict(uses, sizes, pinned, target)
    stays = [use for use in uses if use not in gone]
    assert left == taken(stays, sizes, pinned)
    assert left <= target or left == sum(sizes[ref] for ref in pinned)
    if taken(uses, sizes, pinned) <= target:
        assert gone == []
    elif gone:  # Without the last of those that are given up for one thing, it would not fit.
        newest = max(used for _, used, _ in gone)
        assert taken(stays + [use for use in gone if use[1] == newest], sizes, pinned) > target
        free = {ref for _, _, refs in stays for ref in refs if sizes[ref] and ref not in pinned}
        assert all(max(used for _, used, refs in uses if ref in refs) >= newest for ref in free)


def fill(cache: Cache, ages: dict[str, float], size: int = 1000) -> dict[str, Digest]:
    """Put a blob of `size` bytes with a record for each name, used last so many days ago."""
    digests = {}
    for name, days in ages.items():
        digests[name] = cache.blobs.put(name.encode().ljust(size))
        used(cache, record_blob(cache, name, digests[name]), days * DAY)
    return digests


def test_the_least_recently_used_go_until_it_fits(cache: Cache) -> None:
    """The least recently used go until the cache fits, and no more; each has its reason.

    Leased blobs stay, whatever their age, and the remaining records are complete.
    """
    digest = fill(cache, {"now": 0, "recent": 1, "older": 2, "oldest": 3, "leased": 4})
    lease = cache.lease([digest["leased"]])
    dry = gc.collect(cache, 14 * DAY, True, SpaceLimits(max_size=3500))
    assert gc.collect(cache, 14 * DAY, False, SpaceLimits(max_size=3500)) == dry
    assert removed(dry) == {digest["older"], digest["oldest"]} and (
        dry.over,
        dry.lacking,
        dry.kept,
    ) == (0, 0, 3)
    assert {each.why for each in dry.removed} == {"least recently used, and space is short"}
    assert verify_blobs(cache, lambda done, total: None) == (3, [])
    assert gc.collect(cache, 14 * DAY, False, SpaceLimits(max_size=3500)).removed == []
    lease.release()


def test_a_limit_below_what_is_in_use_is_said(cache: Cache) -> None:
    """If leases alone exceed the limit, all else goes, and the excess is reported."""
    digest = fill(cache, {"a": 0, "b": 0})
    lease = cache.lease([digest["a"]])
    for dry_run in (True, False):
        collection = gc.collect(cache, 14 * DAY, dry_run, SpaceLimits(max_size=100))
        assert removed(collection) == {digest["b"]} and collection.over == 900
    lease.release()


def test_what_a_later_record_needs_stays(cache: Cache, project: Path) -> None:
    """An old record of a blob that a recent one needs is kept: evicting it would free nothing."""
    digest = fill(cache, {"shared": 5, "loose": 4})
    record_blob(cache, "recent", digest["shared"])
    collection = gc.collect(cache, 14 * DAY, False, SpaceLimits(max_size=1500))
    assert removed(collection) == {digest["loose"]} and cache.records.count() == 2


def test_an_old_record_goes_with_what_it_shares(cache: Cache) -> None:
    """An old record that was kept for a recent one's blobs goes together with them."""
    digest = fill(cache, {"shared": 20})["shared"]
    record = record_blob(cache, "recent", digest)
    used(cache, record, DAY)
    assert (
        removed(gc.collect(cache, 14 * DAY, False, SpaceLimits(max_size=10))) == {digest}
        and cache.records.count() == 0
    )


def test_an_extraction_counts_and_goes_with_its_bundle(cache: Cache, project: Path) -> None:
    """An extraction is as recent as its bundle, and goes with it."""
    write_files(project, {"a.py": b"a" * 50_000})
    made = make_bundle(cache, project)
    extraction.extract(cache, made)
    digest = fill(cache, {"later": 0})
    cache.database.execute("UPDATE records SET used=used-86400 WHERE kind='bundle'")
    dry = gc.collect(cache, 14 * DAY, True, SpaceLimits(max_size=40_000))
    assert gc.collect(cache, 14 * DAY, False, SpaceLimits(max_size=40_000)) == dry
    assert removed(dry) == {*made.blobs(), made.tree} and blobs(cache) == {digest["later"]}
    assert os.listdir(cache.extractions) == [] and cache.records.last("bundle:project") is None


@as_root
def test_a_disk_that_runs_full_takes_from_the_cache_down_to_its_floor(tmp_path: Path) -> None:
    """On a full disk only as much is evicted as is missing, and never below the minimum size.

    If something else fills the disk, that is reported.
    """
    with mounted(tmp_path / "disk", "size=8m") as disk, opened(f"{disk}/cache") as cache:
        digest = fill(cache, {str(n): n for n in range(6)}, 256 * 1024)
        free = shutil.disk_usage(disk).free
        space = SpaceLimits(min_free=free + 100_000, min_size=512 * 1024)
        dry = gc.collect(cache, 14 * DAY, True, space)
        real = gc.collect(cache, 14 * DAY, False, space)
        assert removed(dry) == removed(real) == {digest["5"]} and real.lacking == 0
        assert gc.collect(cache, 14 * DAY, False, space).removed == []
        Path(disk, "other").write_bytes(b"x" * (shutil.disk_usage(disk).free - 100_000))
        for _ in range(2):
            collection = gc.collect(cache, 14 * DAY, False, space)
            assert collection.lacking > 0
        assert blobs(cache) == {digest["0"], digest["1"]}


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["record", "lease"]),
            st.sets(st.integers(0, 5), min_size=1),
            st.sampled_from([0.0, 0.5, 2.0, 3.0, -50.0]),
        ),
        max_size=10,
    ),
    st.integers(0, 700),
)
def test_a_dry_run_equals_the_real_one(
    chosen: list[tuple[str, set[int], float]], limit: int
) -> None:
    """A dry run equals the real one, within any limit and for any mixture.

    That includes records used in the future; and a second collection finds nothing more.
    """
    with temporary() as folder, opened(folder) as cache:
        digests = [cache.blobs.put(b"%d" % n * 100) for n in range(6)]
        leases = []
        for at, (what, numbers, days) in enumerate(chosen):
            refs = [digests[n] for n in sorted(numbers)]
            if what == "lease":
                leases.append(cache.lease(refs))
            else:
                used(cache, record_blob(cache, str(at), *refs), days * DAY)
        before = blobs(cache), cache.database.execute("SELECT * FROM records")
        dry = gc.collect(cache, DAY, True, SpaceLimits(max_size=limit))
        assert (blobs(cache), cache.database.execute("SELECT * FROM records")) == before
        assert gc.collect(cache, DAY, False, SpaceLimits(max_size=limit)) == dry
        assert (
            sum(size for _, size in cache.blobs.names()) <= limit or blobs(cache) == cache.leased()
        )
        assert gc.collect(cache, DAY, False, SpaceLimits(max_size=limit)).removed == []
        for lease in leases:
            lease.release()


def test_what_there_is_no_time_for_is_left_to_the_next(cache: Cache) -> None:
    """A collection that runs out of time reports so, and leaves the rest to the next one."""
    digest = fill(cache, {"old": 20, "new": 0})
    collection = gc.collect(cache, 14 * DAY, False, seconds=0)
    assert collection.removed == [] and not collection.complete and collection.kept == 2
    rest = gc.collect(cache, 14 * DAY, False)
    assert removed(rest) == {digest["old"]} and rest.complete and cache.records.count() == 1


def test_two_at_once_and_a_kill(tmp_path: Path) -> None:
    """Concurrent collections and a kill leave only complete records, and the next one finishes."""
    code = PREPARE + "from flyte_build.cas import gc\nprint('begun', flush=True)\n"
    code += "while True: gc.collect(cache, 1e6, False, gc.SpaceLimits(max_size=int(sys.argv[2])))\n"
    with opened(tmp_path) as cache:
        digest = fill(cache, {str(n): n / 10 for n in range(60)}, 2000)
        others = [process(code, str(tmp_path), str(limit)) for limit in (100_000, 50_000)]
        for other in others:
            assert other.stdout is not None and other.stdout.readline() == "begun\n"
        while len(blobs(cache)) > 25:
            assert all(other.poll() is None for other in others)
            with cache.preparing():
                fill(cache, {"more": 0})
        for other in others:
            other.kill()
            other.communicate()
        gc.collect(cache, 14 * DAY, False, SpaceLimits(max_size=50_000))
        assert (
            digest["0"] in blobs(cache) and verify_blobs(cache, lambda done, total: None)[1] == []
        )
        assert all(
            map(cache.blobs.has, (ref for _, _, refs in cache.records.uses(0) for ref in refs))
        )


@as_root
def test_a_full_disk_gives_up_extractions_first(tmp_path: Path) -> None:
    """On a full disk extractions go first, since the database cannot forget anything without space.

    They can be made again from bundles.
    """
    with mounted(tmp_path / "disk", "size=8m") as disk, opened(f"{disk}/cache") as cache:
        write_files(tmp_path / "p", {"a.py": b"a" * 1_000_000})
        extraction.extract(cache, make_bundle(cache, tmp_path / "p"))
        Path(disk, "other").write_bytes(b"x" * shutil.disk_usage(disk).free)
        gc.collect(cache, 0, False)
        assert (
            cache.records.count() == 0
            and os.listdir(cache.extractions) == []
            and blobs(cache) == set()
        )


def test_the_command_takes_limits_from_options_and_settings(flyte: Shell) -> None:
    """`--keep`, `--max-size`, `--min-free` override the settings, and wrong values are refused."""
    flyte("run", "tasks.py", "hello")
    cached = flyte.home / "cache" / "v1" / "blobs" / "sha256"

    def held() -> int:
        return sum(path.stat().st_size for path in cached.iterdir())

    size = held()
    assert flyte.json("cache", "gc")["removed"] == []
    found = flyte.json("cache", "gc", "--dry-run", "--max-size", "1kB")
    assert (
        found["bytes"] >= size - 1000
        and flyte.json("cache", "gc", "--dry-run", env={"FLYTE_CACHE_MAX_SIZE": "1 kB"}) == found
    )
    assert (
        flyte.json(
            "cache", "gc", "--dry-run", "--max-size", "none", env={"FLYTE_CACHE_MAX_SIZE": "1 kB"}
        )["removed"]
        == []
    )
    assert flyte.json("cache", "gc", "--dry-run", env={"FLYTE_CACHE_KEEP": "0"})["removed"]
    assert held() == size
    lacking = flyte("cache", "gc", "--min-free", "1000 PB")
    assert "something else fills it" in lacking.stderr and held() == size
    assert flyte.json("cache", "gc", "--max-size", "1kB") == found
    for option in ("--keep", "--max-size", "--min-free"):
        for text in ("lots", "-1"):
            errors = flyte("cache", "gc", option, text, exit_code=2).stderr
            assert option in errors and "For example" in errors


@pytest.fixture
def large(flyte: Shell) -> Shell:
    """A project whose cache is large, has garbage, and was last collected two days ago."""
    flyte("run", "tasks.py", "hello")
    with opened(flyte.home / "cache") as cache, cache.blobs.batch() as batch:
        for number in range(70):
            batch.add(bytes([number]) * 1_000_000)
    collected(flyte, ago=2 * DAY)
    return flyte


def collected(flyte: Shell, ago: float) -> None:
    """Let the last collection have begun so many seconds ago."""
    os.utime(flyte.home / "cache" / "v1" / "collected.json", (time.time() - ago,) * 2)


def housekeepers(flyte: Shell) -> list[psutil.Process]:
    """Return the processes that collect this cache in the background."""
    found = []
    for each in psutil.process_iter(["cmdline", "status"]):
        line = each.info["cmdline"] or []
        if (
            any("flyte_build.ops.gc" in word for word in line)
            and str(flyte.home) in line[-1]
            and each.info["status"] != psutil.STATUS_ZOMBIE
        ):
            found.append(each)
    return found


def wait_until(what: Callable[[], Any]) -> Any:
    """Return the result of `what` as soon as it is true."""
    deadline = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found


def stats(flyte: Shell) -> Any:
    return flyte.json("cache", "stats")


def test_it_collects_by_itself_after_a_command(large: Shell) -> None:
    """After a command the cache is collected in the background, once a day.

    The garbage goes, the run's artifacts stay, and `cache stats` shows time and result.
    """
    large("run", "tasks.py", "hello")
    found = wait_until(lambda: stats(large)["collected"])
    assert found["by"] == "itself" and found["removed"] == 70 and found["bytes"] == 70_000_000
    assert found["complete"] and found["error"] is None
    assert "automatically: 70.0 MB removed" in large("cache", "stats").stdout
    assert {node["state"] for node in large.json("run", "tasks.py", "hello")["prepared"]} == {
        "cached"
    }
    assert housekeepers(large) == []


def test_it_holds_nothing_of_the_command(large: Shell) -> None:
    """The background collection outlives the command, and holds none of its resources.

    It has its own session, without the command's pipes, directory or terminal.
    """
    lock = large.home / "cache" / "v1" / "lock"
    import fcntl

    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # So that it must wait while it is looked at.
        done = large("run", "tasks.py", "hello")  # Reads its pipes to their end.
        assert done.stdout == "Hello, World!\n"
        (keeper,) = wait_until(lambda: housekeepers(large))
        assert (
            keeper.cwd() == "/"
            and keeper.terminal() is None
            and os.getsid(keeper.pid) == keeper.pid
        )
        if os.path.isdir("/proc/self/fd"):
            held = {os.readlink(f"/proc/{keeper.pid}/fd/{number}") for number in (0, 1, 2)}
            assert held == {os.devnull}
        large("run", "tasks.py", "hello")
        assert housekeepers(large) == [keeper]
    assert wait_until(lambda: stats(large)["collected"])["removed"] == 70


def test_it_starts_only_when_it_is_due(large: Shell) -> None:
    """The background collection starts only when due, or after the clock was set back.

    It does not start within a day, if it is turned off, or for a small or new cache.
    """
    mark = large.home / "cache" / "v1" / "collected.json"

    def starts(ago: float, *, env: dict[str, str] | None = None) -> bool:
        collected(large, ago)
        before = mark.stat().st_mtime
        large("run", "tasks.py", "hello", env=env)
        return mark.stat().st_mtime != before

    assert not starts(3600) and not starts(2 * DAY, env={"FLYTE_CACHE_AUTO_GC": "0"})
    mark.unlink()
    large("run", "tasks.py", "hello")
    assert stats(large)["collected"] is None and mark.exists() and housekeepers(large) == []
    assert starts(-400 * DAY)
    assert wait_until(lambda: stats(large)["collected"])["removed"] == 70
    last = stats(large)["collected"]
    # It is small now.
    assert starts(2 * DAY) and stats(large)["collected"] == last and housekeepers(large) == []


def test_a_kill_leaves_a_cache_that_works(large: Shell) -> None:
    """kill -9 of a background collection breaks nothing, and the next day's one finishes."""
    import fcntl

    with open(large.home / "cache" / "v1" / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        large("run", "tasks.py", "hello")
        (keeper,) = wait_until(lambda: housekeepers(large))
        os.kill(keeper.pid, signal.SIGKILL)
        wait_until(lambda: not housekeepers(large))
    assert stats(large)["collected"] is None and stats(large)["bytes"] > 70_000_000
    assert large.json("cache", "verify")["bad"] == []
    collected(large, 2 * DAY)
    large("run", "tasks.py", "hello")
    assert wait_until(lambda: stats(large)["collected"])["removed"] == 70


def test_what_goes_wrong_is_in_the_statistics(large: Shell) -> None:
    """`cache stats` shows the error of a background collection, which has no other outlet."""
    shutil.rmtree(large.home / "cache" / "v1" / "extractions")
    (large.home / "cache" / "v1" / "extractions").write_text("a file")
    large("bundle", "ls", "tasks.py")
    found = wait_until(lambda: stats(large)["collected"])
    assert found["error"] and "failed: " in large("cache", "stats").stdout


def test_a_collection_by_hand_counts_too(large: Shell) -> None:
    """After `flyte cache gc` no background collection is due for a day."""
    large("cache", "gc", "--dry-run")
    assert stats(large)["collected"] is None
    large("cache", "gc")
    assert stats(large)["collected"]["by"] == "command"
    assert "by `flyte cache gc`: 70.0 MB removed" in large("cache", "stats").stdout
    document = json.loads((large.home / "cache" / "v1" / "collected.json").read_text())
    assert document["removed"] == 70


def test_stats_count_what_the_disk_holds(flyte: Shell) -> None:
    """`cache stats` counts disk usage as `du` does, with directories, names and last blocks."""
    for number in range(300):
        path = flyte.project / f"p{number % 7}" / f"m{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {number}")
    flyte("run", "--copy-style", "all", "tasks.py", "hello")
    found = flyte.json("cache", "stats")
    assert set(found) == {
        "path",
        "blobs",
        "bytes",
        "parts",
        "records",
        "leases",
        "environments",
        "collected",
    }

    def du(path: str) -> int:
        return int(
            subprocess.run(
                ["du", "-s", "--block-size=1", path], capture_output=True, text=True, check=True
            ).stdout.split()[0]
        )

    for part in ("blobs", "extractions"):
        assert found["parts"][part] == du(f"{found['path']}/{part}")
    assert abs(found["bytes"] - du(found["path"])) < 200_000  # The database is being used.
    assert found["bytes"] == sum(found["parts"].values()) > 300 * 512
    assert f"extractions {found['parts']['extractions']:,}" in flyte("cache", "stats").stdout
