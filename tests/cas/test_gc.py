"""Garbage collection keeps what has a root, removes the rest, and is safe beside other work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyte_build.bundler import bundle, extraction, marker
from flyte_build.cas import gc
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.records import Record
from flyte_build.cas.verify import verify_blobs
from tests.support.caches import make_bundle, opened, record_blob
from tests.support.checkout import CHECKOUT
from tests.support.files import ROOT, temporary, write_files
from tests.support.processes import process, run

DAY = 86_400.0
PREPARE = """
import sys
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import key
from flyte_build.cas.records import Record
cache = Cache.open(sys.argv[1], Counters(), print)
"""


def used(cache: Cache, record: Record, ago: float) -> None:
    """Let a record have been used last so many seconds ago."""
    cache.database.execute(
        "UPDATE records SET used=? WHERE key=?", (int(time.time() - ago), record.key)
    )


def blobs(cache: Cache) -> set[Digest]:
    """Return the digests of all blobs in the store."""
    return {digest for digest, _ in cache.blobs.names()}


def removed(collection: gc.Collection) -> set[str]:
    """Return the digests (or file names) of what a collection removed."""
    return {each.digest for each in collection.removed}


@pytest.fixture
def filled(cache: Cache) -> Iterator[tuple[Cache, dict[str, Digest]]]:
    """A cache with one blob for each reason to keep or to remove one."""
    names = ("recent", "shared", "old", "leased", "loose")
    digest = {name: cache.blobs.put(name.encode() * 10) for name in names}
    record_blob(cache, "recent", digest["recent"], digest["shared"])
    used(cache, record_blob(cache, "old", digest["old"], digest["shared"]), 15 * DAY)
    lease = cache.lease([digest["leased"]])
    yield cache, digest
    lease.release()


def test_what_leases_and_recent_records_need_is_kept(
    filled: tuple[Cache, dict[str, Digest]],
) -> None:
    """Blobs of leases and recent records are kept; all others go, together with old records.

    Each removal has its size and reason.
    """
    cache, digest = filled
    collection = gc.collect(cache, 14 * DAY, False)
    assert removed(collection) == {digest["old"], digest["loose"]} and collection.kept == 3
    assert blobs(cache) == {digest["recent"], digest["shared"], digest["leased"]}
    assert collection.bytes == len(b"old" * 10) + len(b"loose" * 10) and all(
        each.why for each in collection.removed
    )
    assert cache.records.count() == 1 and verify_blobs(cache, lambda done, total: None) == (3, [])
    assert gc.collect(cache, 14 * DAY, False).removed == []


def test_a_dry_run_finds_the_same_and_touches_nothing(cache: Cache, project: Path) -> None:
    """A dry run finds the same blobs, records, extractions and leftovers, and touches nothing."""
    write_files(project, {"a.py": b"a"})
    made = make_bundle(cache, project)
    extraction.extract(cache, made)
    cache.blobs.put(b"loose")
    cache.database.execute("UPDATE records SET used=1")
    Path(cache.blobs.folder, ".writing-left").write_bytes(b"half")
    os.mkdir(f"{cache.extractions}/.extracting-left")
    os.mkdir(f"{cache.extractions}/.doomed-left")
    before = state(cache)
    dry = gc.collect(cache, DAY, True)
    assert state(cache) == before
    assert gc.collect(cache, DAY, False) == dry
    assert removed(dry) == {
        *made.blobs(),
        made.tree,
        Digest.of(b"loose"),
        ".writing-left",
        ".extracting-left",
        ".doomed-left",
    }
    assert (
        blobs(cache) == set() and os.listdir(cache.extractions) == [] and cache.records.count() == 0
    )


def state(cache: Cache) -> object:
    """Return everything that is in a cache."""
    found = sorted((here, sorted(names)) for here, _, names in os.walk(cache.folder))
    return (
        found,
        cache.database.execute("SELECT * FROM records ORDER BY key"),
        cache.database.execute("SELECT * FROM labels"),
    )


actions = st.lists(
    st.tuples(
        st.sampled_from(["blob", "record", "lease"]),
        st.sets(st.integers(0, 5), min_size=1),
        st.sampled_from([0.0, 0.5, 2.0, -50.0]),
    ),
    max_size=10,
)


@settings(max_examples=40)
@given(actions)
def test_a_dry_run_equals_the_real_one(chosen: list[tuple[str, set[int], float]]) -> None:
    """A dry run equals the real one, for any mixture of blobs, records and leases.

    Exactly the blobs with a root stay.
    """
    with temporary() as folder, opened(folder) as cache:
        digests = [cache.blobs.put(b"%d" % n) for n in range(6)]
        needed: set[Digest] = set()
        leases = []
        for at, (what, numbers, days) in enumerate(chosen):
            refs = [digests[n] for n in sorted(numbers)]
            if what == "lease":
                leases.append(cache.lease(refs))
            if what == "record":
                used(cache, record_blob(cache, str(at), *refs), days * DAY)
            if what == "lease" or (what == "record" and days < 1):
                needed.update(refs)
        dry = gc.collect(cache, DAY, True)
        assert blobs(cache) == set(digests)
        assert (
            gc.collect(cache, DAY, False) == dry
            and blobs(cache) == needed
            and dry.kept == len(needed)
        )
        for lease in leases:
            lease.release()


def test_an_old_record_of_what_is_needed_anyway_is_kept(cache: Cache) -> None:
    """An old record of a blob that is needed anyway is kept, and goes with what needs the blob.

    Keeping it takes no space, and saves a rebuild.
    """
    digest = cache.blobs.put(b"pack")
    used(cache, record_blob(cache, "pack", digest), 20 * DAY)
    recent = record_blob(cache, "bundle", digest, cache.blobs.put(b"more"))
    gc.collect(cache, 14 * DAY, False)
    assert cache.records.count() == 2
    used(cache, recent, 20 * DAY)
    gc.collect(cache, 14 * DAY, False)
    assert cache.records.count() == 0 and blobs(cache) == set()


def test_a_command_that_prepares_is_waited_for(tmp_path: Path) -> None:
    """Nothing is collected while another process has written blobs and not yet recorded them.

    Afterwards its record counts.
    """
    code = (
        PREPARE + "with cache.preparing():\n"
        "    digest = cache.blobs.put(b'in flight')\n"
        "    print('written', flush=True); sys.stdin.readline()\n"
        "    assert cache.blobs.has(digest), 'collected'\n"
        "    cache.records.add(Record(key('k', 1, {}), 'k', digest, (digest,), {}))\n"
    )
    collecting = (
        PREPARE
        + "from flyte_build.cas import gc\nprint('begun', flush=True)\nprint(len(gc.collect(cache,"
        " 1000, False).removed))"
    )
    with opened(tmp_path) as cache, process(code, str(tmp_path)) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "written\n"
        with process(collecting, str(tmp_path)) as collector:
            assert collector.stdout is not None and collector.stdout.readline() == "begun\n"
            assert cache.blobs.has(Digest.of(b"in flight")) and collector.poll() is None
            assert writer.communicate("\n") == ("", "") and collector.communicate() == ("0\n", "")
        assert blobs(cache) == {Digest.of(b"in flight")}


def test_collections_beside_writers_lose_nothing(tmp_path: Path) -> None:
    """Two collectors keep all blobs that writers record or lease meanwhile, and remove the rest."""
    writing = (
        PREPARE + "for n in range(150):\n"
        "    data = (sys.argv[2] + str(n)).encode()\n"
        "    with cache.preparing():\n"
        "        digest, other = cache.blobs.put(data), cache.blobs.put(b'loose' + data)\n"
        "        cache.records.add(Record(key('k', 1, {'n': data}), 'k', digest, (digest,), {}))\n"
        "        lease = cache.lease([other])\n"
        "    assert cache.blobs.read(digest) == data and cache.blobs.read(other)\n"
        "    lease.release()\n"
    )
    collecting = (
        PREPARE
        + "from flyte_build.cas import gc\nfor n in range(40): gc.collect(cache, 1000, False)"
    )
    others = [process(writing, str(tmp_path), f"w{n} ") for n in range(2)] + [
        process(collecting, str(tmp_path)) for _ in range(2)
    ]
    assert [each.communicate() for each in others] == [("", "")] * 4
    with opened(tmp_path) as cache:
        gc.collect(cache, 1000, False)
        assert blobs(cache) == {
            Digest.of(f"w{n} {at}".encode()) for n in range(2) for at in range(150)
        }


def test_a_dead_owner_keeps_nothing(tmp_path: Path) -> None:
    """kill -9 of a lease's owner ends the lease."""
    code = (
        PREPARE + "lease = cache.lease([cache.blobs.put(b'data')]); print('held', flush=True);"
        " sys.stdin.read()"
    )
    with opened(tmp_path) as cache, process(code, str(tmp_path)) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "held\n"
        assert removed(gc.collect(cache, 0, False)) == set()
        owner.kill()
        owner.wait()
        assert (
            removed(gc.collect(cache, 0, False)) == {Digest.of(b"data")}
            and os.listdir(f"{cache.folder}/leases") == []
        )


def test_a_record_used_in_the_future_counts_as_used_now(cache: Cache) -> None:
    """A record with a use in the future, from before the clock was set back, counts as recent.

    It goes when nothing without a root is kept.
    """
    digest = cache.blobs.put(b"data")
    record = record_blob(cache, "r", digest)
    used(cache, record, -400 * DAY)
    assert gc.collect(cache, DAY, False).removed == [] and cache.records.find(record.key) == record
    used(cache, record, -400 * DAY)
    assert removed(gc.collect(cache, 0, True)) == removed(gc.collect(cache, 0, False)) == {digest}


def test_using_a_record_keeps_it(cache: Cache) -> None:
    """Finding a record counts as use."""
    digest = cache.blobs.put(b"data")
    record = record_blob(cache, "r", digest)
    used(cache, record, 20 * DAY)
    assert cache.records.find(record.key) == record
    assert gc.collect(cache, 14 * DAY, False).removed == []


def test_extractions_go_with_what_needs_their_trees(cache: Cache, project: Path) -> None:
    """An old extraction is removed although it is protected; recent and leased ones stay usable."""
    made = {}
    for name in ("old", "leased", "recent"):
        write_files(project, {f"d/{name}.py": name.encode()})
        made[name] = make_bundle(cache, project, f"bundle:{name}")
        extraction.extract(cache, made[name])
    cache.database.execute(
        "UPDATE records SET used=1 WHERE artifact<>?", (made["recent"].manifest,)
    )
    lease = cache.lease([made["leased"].tree])
    collection = gc.collect(cache, DAY, False)
    assert made["old"].tree in removed(collection) and not os.path.exists(
        cache.extraction(made["old"].tree)
    )
    assert marker.find(cache, made["leased"].tree) and marker.find(cache, made["recent"].tree)
    assert all(map(cache.blobs.has, made["recent"].blobs())) and not cache.blobs.has(
        made["old"].manifest
    )
    lease.release()
    gc.collect(cache, DAY, False)
    assert os.listdir(cache.extractions) == [made["recent"].tree.hex]


def test_a_keep_time_of_zero_removes_all_without_a_root(cache: Cache, project: Path) -> None:
    """A keep time of zero also removes what was recorded in this second; it can be rebuilt."""
    write_files(project, {"a.py": b"a"})
    made = make_bundle(cache, project)
    extraction.extract(cache, made)
    gc.collect(cache, 0, False)
    assert (
        blobs(cache) == set() and cache.records.count() == 0 and os.listdir(cache.extractions) == []
    )
    assert cache.records.labelled("bundle") == [] and cache.records.last("bundle:project") is None
    assert make_bundle(cache, project) == made and bundle.read(made.manifest, cache.blobs) == made


def test_the_stat_index_forgets_folders_that_are_gone(cache: Cache, project: Path) -> None:
    """The stat index drops directories that are gone."""
    for name in ("here", "gone"):
        write_files(project / name, {"a.py": b"a"})
        make_bundle(cache, project / name)
    assert len(cache.index.scopes()) == 2
    run("import shutil, sys; shutil.rmtree(sys.argv[1])", str(project / "gone"))
    gc.collect(cache, DAY, False)
    assert cache.index.scopes() == [f"tree 2:{project}/here"]


@pytest.mark.parametrize("junk", ["file", "folder", "link", "odd"])
def test_junk_among_the_extractions_is_removed(cache: Cache, tmp_path: Path, junk: str) -> None:
    """Junk among the extractions breaks nothing, and the target of a link is not touched."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("mine")
    place = Path(cache.extractions, "g" * 64 if junk == "odd" else "junk")
    makers: dict[str, Callable[[], object]] = {
        "file": lambda: place.write_text("x"),
        "folder": lambda: place.mkdir(),
        "link": lambda: place.symlink_to(tmp_path / "elsewhere"),
        "odd": lambda: place.mkdir(),
    }
    makers[junk]()
    gc.collect(cache, DAY, False)
    assert os.listdir(cache.extractions) == [] and os.listdir(tmp_path / "elsewhere") == ["mine"]


@pytest.mark.skipif(not ROOT, reason="changes the user")
def test_an_ordinary_user_can_remove_an_extraction() -> None:
    """An ordinary user can remove extractions, whose directories are protected from their owner."""
    code = """
import os, sys
import encodings.ascii, psutil, zstandard, pathspec
from tests.support.caches import *
from tests.support.files import *
from tests.support.processes import *
from tests.support.caches import make_bundle, opened
from tests.support.files import write_files
from flyte_build.bundler import extraction, tree
from flyte_build.workspace import ignore, sensitive
from flyte_build.cas import gc
os.setgid(65534); os.setuid(65534)
os.makedirs(sys.argv[1] + "/mine")
with opened(sys.argv[1] + "/mine/cache") as cache:
    write_files(sys.argv[1] + "/mine/p", {"a/b/c.py": b"x", "d.py": b"y"})
    place = extraction.extract(cache, make_bundle(cache, sys.argv[1] + "/mine/p"))
    try: open(place + "/code/d.py", "a"); print("writable")
    except PermissionError: pass
    gc.collect(cache, 0, False)
    print(os.listdir(cache.extractions))
"""
    with temporary() as folder:
        os.chmod(folder, 0o777)
        assert run(code, str(folder), cwd=str(CHECKOUT)) == "[]"
