"""The local store: blobs and records come back, damage is detected, many processes share it.

A full disk breaks nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_build.bundler.index import publish_index
from flyte_build.cas.blobs import Blobs
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import key
from flyte_build.cas.records import Record
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.statindex import hash_file
from flyte_build.cas.verify import verify_blobs
from flyte_build.errors import (
    BlobCorrupt,
    BlobMissing,
    FileUnstable,
    StoreError,
    StoreFormatUnknown,
    StoreUnavailable,
)
from tests.support.caches import make_bundle, opened, record_blob, scan, tree_of
from tests.support.files import (
    as_root,
    clock_moves,
    flip,
    mounted,
    overwrite,
    temporary,
    write_files,
)
from tests.support.processes import process, run

OPEN = """
import os, sys, json
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import key
from flyte_build.cas.records import Record
cache = Cache.open(sys.argv[1], Counters(), print)
"""


def nothing(done: int, total: int) -> None:
    """Ignore progress."""


# --- Blobs


@given(st.lists(st.binary(), max_size=5))
def test_what_is_put_is_read(datas: list[bytes]) -> None:
    """Blobs come back as they were, by their digest, and are listed with their sizes."""
    with temporary() as folder, opened(folder) as cache:
        digests = [cache.blobs.put(data) for data in datas]
        assert digests == [Digest.of(data) for data in datas]
        assert [cache.blobs.read(digest) for digest in digests] == datas
        assert dict(cache.blobs.names()) == {Digest.of(data): len(data) for data in datas}
        assert all(map(cache.blobs.verify, digests)) and not list(cache.blobs.litter())


def test_a_blob_is_written_once(tmp_path: Path) -> None:
    """The second put of the same bytes writes nothing."""
    counters = Counters()
    with opened(tmp_path, counters=counters) as cache:
        for _ in range(3):
            cache.blobs.put(b"the same")
    assert counters.snapshot()["blobs_written"] == 1


def test_a_blob_written_in_pieces_is_the_blob_of_the_whole(cache: Cache) -> None:
    """A writer returns the digest and the size of everything that was written."""
    with cache.blobs.batch() as batch, batch.writer() as writer:
        for piece in (b"a" * 1000, b"", memoryview(b"b" * 70_000)):
            writer.write(piece)
        digest = writer.finish()
    assert writer.size == 71_000 and cache.blobs.read(digest) == b"a" * 1000 + b"b" * 70_000


def test_what_is_not_there_is_missing(cache: Cache) -> None:
    """Reading, opening and verifying a missing blob raise an error."""
    digest = Digest.of(b"never written")
    assert not cache.blobs.has(digest)
    for ask in (cache.blobs.read, cache.blobs.open, cache.blobs.verify):
        with pytest.raises(BlobMissing):
            ask(digest)
    cache.blobs.delete(digest)


def test_a_batch_that_raises_leaves_nothing(cache: Cache) -> None:
    """If the body of a batch raises, neither its blobs nor its temporary files stay."""
    with pytest.raises(ZeroDivisionError), cache.blobs.batch() as batch:
        batch.add(b"one")
        with batch.writer() as writer:
            writer.write(b"two")
            raise ZeroDivisionError
    assert os.listdir(cache.blobs.folder) == []


def test_a_batch_names_its_blobs_at_its_end(cache: Cache) -> None:
    """The blobs of a batch are visible only after its end."""
    with cache.blobs.batch() as batch:
        digests = [batch.add(b"one"), batch.add(b"two"), batch.add(b"one")]
        assert not any(map(cache.blobs.has, digests)) and not list(cache.blobs.names())
    assert all(map(cache.blobs.verify, digests)) and not list(cache.blobs.litter())


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "first bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "last bit": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "truncated": lambda data: data[:-1],
    "empty": lambda data: b"",
    "longer": lambda data: data + b"\0",
    "swapped": lambda data: b"another blob of this store",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_blob_is_found_quarantined_and_made_again(
    cache: Cache, damage: Callable[[bytes], bytes]
) -> None:
    """Reading a damaged blob raises, its bytes are kept in quarantine, and it can be put again."""
    data = b"some bytes " * 1000
    digest = cache.blobs.put(data)
    bad = damage(data)
    overwrite(cache.blobs.path(digest), bad)
    with pytest.raises(BlobCorrupt, match=str(digest)):
        cache.blobs.read(digest)
    assert Path(cache.folder, "quarantine", digest.hex).read_bytes() == bad
    with pytest.raises(BlobMissing):
        cache.blobs.read(digest)
    assert cache.blobs.read(cache.blobs.put(data)) == data


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_verify_finds_a_damaged_blob_and_forgets_what_needs_it(
    cache: Cache, damage: Callable[[bytes], bytes]
) -> None:
    """`verify` reads all blobs, names the bad one, and leaves the good ones and their records."""
    good, bad = cache.blobs.put(b"good"), cache.blobs.put(b"bad" * 9)
    kept, lost = record_blob(cache, "kept", good), record_blob(cache, "lost", good, bad)
    overwrite(cache.blobs.path(bad), damage(b"bad" * 9))
    read, found = verify_blobs(cache, nothing)
    assert read == 2 and [each.digest for each in found] == [bad] and found[0].repaired
    assert cache.records.find(kept.key) == kept and cache.records.find(lost.key) is None
    assert not cache.blobs.has(bad) and cache.blobs.has(good)
    assert verify_blobs(cache, nothing) == (1, [])


def test_verify_forgets_records_whose_blobs_are_gone(cache: Cache) -> None:
    """A record of a deleted blob is dropped, even if the blob was deleted by hand."""
    digest = cache.blobs.put(b"gone")
    record = record_blob(cache, "r", digest)
    os.unlink(cache.blobs.path(digest))
    assert [each.digest for each in verify_blobs(cache, nothing)[1]] == [digest]
    assert cache.records.find(record.key) is None


def test_condemning_twice_is_safe(cache: Cache) -> None:
    """Two processes that find the same bad blob both get the error."""
    digest = cache.blobs.put(b"bad")
    for _ in range(2):
        assert isinstance(cache.blobs.condemn(digest, "why"), BlobCorrupt)


JUNK = ["junk", ".hidden", "a" * 63, "a" * 65, "g" * 64, "A" * 64, ".writing-junk", "é" * 64]


@pytest.mark.parametrize("name", JUNK)
def test_junk_among_the_blobs_is_passed_over(cache: Cache, name: str) -> None:
    """A file without a blob's name is not listed and not verified, and breaks nothing."""
    digest = cache.blobs.put(b"data")
    Path(cache.blobs.folder, name).write_bytes(b"junk")
    assert list(cache.blobs.names()) == [(digest, 4)]
    assert verify_blobs(cache, nothing) == (1, [])
    assert cache.statistics()["blobs"] == 1


# --- The database and the format


def test_records_are_kept_and_replaced(cache: Cache) -> None:
    """A record comes back as it was, is replaced by a second one of its key, and can be removed."""
    first = Record(
        key("k", 1, {}),
        "k",
        Digest.of(b"1"),
        (Digest.of(b"1"), Digest.of(b"2")),
        {"b": ["x", None, 1.5], "a\udcff": True},
    )
    second = Record(first.key, "k", Digest.of(b"3"), (), {})
    assert cache.records.find(first.key) is None
    cache.records.add(first)
    assert cache.records.find(first.key) == first
    cache.records.add(second)
    assert cache.records.find(first.key) == second and cache.records.count() == 1
    cache.records.remove(first.key)
    assert cache.records.find(first.key) is None


def test_the_last_traces_are_kept_newest_first(cache: Cache) -> None:
    """Old traces of a base are dropped for new ones; those of another base stay."""
    base, other = key("base", 1, {}), key("other", 1, {})
    keys = [key("k", 1, {"n": n}) for n in range(6)]
    cache.records.add_trace(other, keys[0], "other", 3)
    for n, each in enumerate(keys):
        cache.records.add_trace(base, each, {"n": n}, 3)
    assert cache.records.traces(base, 10) == [(keys[n], {"n": n}) for n in (5, 4, 3)]
    assert cache.records.traces(other, 10) == [(keys[0], "other")]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no database at all" * 100,
        lambda data: bytes(len(data)),
        lambda data: b"\xff" * 100 + data[100:],
    ],
    ids=["empty", "text", "zeros", "header"],
)
def test_a_damaged_database_is_moved_aside_and_begun_anew(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """A damaged database is reported and moved aside; blobs stay, and the cache works again."""
    with opened(tmp_path) as cache:
        digest = cache.blobs.put(b"data")
        record_blob(cache, "r", digest)
        database = Path(cache.folder, "cache.sqlite")
    bad = damage(database.read_bytes())
    database.write_bytes(bad)
    said: list[str] = []
    with opened(tmp_path, said.append) as cache:
        assert cache.records.count() == 0 and cache.blobs.read(digest) == b"data"
        record = record_blob(cache, "r", digest)
        aside = list(Path(cache.folder).glob("cache.sqlite.damaged-*"))
    if bad.strip(b"\0"):  # SQLite takes an empty file for a new database: nothing to say.
        assert (
            len(said) == len(aside) == 1
            and str(aside[0]) in said[0]
            and aside[0].read_bytes() == bad
        )
    with opened(tmp_path) as cache:
        assert cache.records.find(record.key) == record


def test_a_database_damaged_beyond_its_first_page_heals(tmp_path: Path) -> None:
    """Damage of any page of the database raises at most one `StoreError`, then the cache works."""
    with opened(tmp_path) as cache:
        digest = cache.blobs.put(b"data")
        for n in range(500):
            record_blob(cache, f"r{n}", digest)
        cache.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database = Path(cache.folder, "cache.sqlite")
    data = database.read_bytes()
    database.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))
    said: list[str] = []
    for attempt in range(3):
        with opened(tmp_path, said.append) as cache:
            try:
                assert cache.records.find(key("test", 1, {"name": "r7"})) is None
                record = record_blob(cache, "new", digest)
                assert cache.records.find(record.key) == record
                return
            except StoreError:
                assert attempt == 0
    raise AssertionError("It never healed")


def test_a_database_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """A database of an older version keeps its contents, and gets a ledger."""
    with opened(tmp_path) as cache:
        record = record_blob(cache, "old", cache.blobs.put(b"old"))
        cache.database.execute("DROP TABLE held")
        cache.database.execute("DROP TABLE publications")
        cache.database.execute("DROP TABLE absences")
        cache.database.execute("PRAGMA user_version=1")
    for _ in range(2):
        with opened(tmp_path) as cache:
            assert cache.records.find(record.key) == record
            assert Ledger(cache.database).owed_anywhere() == [] == Ledger(cache.database).away()
            assert cache.database.execute("PRAGMA user_version") == [(3,)]


def test_a_newer_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    """A database of a newer, unknown format is refused, and never rewritten."""
    with opened(tmp_path) as cache:
        path = f"{cache.folder}/cache.sqlite"
        cache.database.execute("PRAGMA user_version=99")
    with pytest.raises(StoreFormatUnknown, match="newer"), opened(tmp_path):
        pass
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone() == (99,)
    database.close()


@pytest.mark.parametrize("newer", ["v2", "v17"])
def test_a_folder_of_a_newer_format_is_refused(tmp_path: Path, newer: str) -> None:
    """Next to a newer version's store, no old one is begun."""
    (tmp_path / newer).mkdir()
    with pytest.raises(StoreFormatUnknown, match=newer[1:]), opened(tmp_path):
        pass
    assert os.listdir(tmp_path) == [newer]


@pytest.mark.parametrize("other", ["v0", "vendor", "v", "v1.old", "x2"])
def test_other_folders_are_none_of_a_newer_format(tmp_path: Path, other: str) -> None:
    """Only `v` and a larger number is a newer store."""
    (tmp_path / other).mkdir()
    with opened(tmp_path) as cache:
        assert cache.records.count() == 0


def test_the_cache_can_be_deleted_between_commands(tmp_path: Path) -> None:
    """`rm -rf` of the cache's directory only costs its contents."""
    with opened(tmp_path / "c") as cache:
        digest = cache.blobs.put(b"data")
    run("import shutil, sys; shutil.rmtree(sys.argv[1])", str(tmp_path / "c"))
    with opened(tmp_path / "c") as cache:
        assert not cache.blobs.has(digest) and cache.blobs.put(b"data") == digest


def test_the_secret_is_one_for_all_processes_and_private(tmp_path: Path) -> None:
    """All processes get the same private secret, even if all of them ask for it first."""
    started = [process(OPEN + "print(cache.secret.hex())", str(tmp_path)) for _ in range(4)]
    secrets = {each.communicate()[0].strip() for each in started}
    path = tmp_path / "v1" / "secret"
    assert (
        secrets == {path.read_bytes().hex()}
        and len(path.read_bytes()) == 32
        and path.stat().st_mode & 0o077 == 0
    )
    assert [name.name for name in path.parent.glob("secret*")] == ["secret"]


# --- What the operating system refuses


def fill(folder: str) -> str:
    """Leave no space in a file system."""
    path = f"{folder}/filler"
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


@as_root
@pytest.mark.parametrize("size", [1, 4096, 300_000])
def test_a_full_disk_is_said_and_leaves_the_store_whole(tmp_path: Path, size: int) -> None:
    """ENOSPC for a blob is a clear error that leaves nothing, and the next attempt works."""
    with mounted(tmp_path / "m", "size=2m") as mount, opened(f"{mount}/c") as cache:
        digest = cache.blobs.put(b"before")
        filler = fill(mount)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            cache.blobs.put(os.urandom(size))
        assert list(cache.blobs.names()) == [(digest, 6)] and not list(cache.blobs.litter())
        assert cache.blobs.read(digest) == b"before"
        os.unlink(filler)
        assert cache.blobs.read(cache.blobs.put(b"after")) == b"after"


@as_root
def test_a_full_disk_never_breaks_records(tmp_path: Path) -> None:
    """ENOSPC for a record or the index is `StoreUnavailable`, and earlier records stay."""
    with mounted(tmp_path / "m", "size=2m") as mount, opened(f"{mount}/c") as cache:
        digest = cache.blobs.put(b"before")
        record = record_blob(cache, "before", digest)
        filler = fill(mount)
        with pytest.raises(StoreUnavailable):
            for n in range(2000):
                cache.records.add(
                    Record(key("k", 1, {"n": n}), "k", digest, (digest,), {"filler": "x" * 1000})
                )
        assert cache.records.find(record.key) == record
        with pytest.raises(StoreUnavailable):
            cache.index.save("scope", {"": os.urandom(1 << 20)})
        os.unlink(filler)
        assert record_blob(cache, "after", digest) == cache.records.find(
            key("test", 1, {"name": "after"})
        )
        assert cache.database.execute("PRAGMA integrity_check")[0] == ("ok",)


@as_root
def test_a_full_disk_says_so_when_a_cache_is_opened(tmp_path: Path) -> None:
    """A cache that cannot be created on a full disk is `StoreUnavailable`, and works later."""
    with mounted(tmp_path / "m", "size=1m") as mount:
        filler = fill(mount)
        with pytest.raises(StoreUnavailable), opened(f"{mount}/c"):
            pass
        os.unlink(filler)
        with opened(f"{mount}/c") as cache:
            assert cache.blobs.put(b"data")


def writes(cache: Cache, digest: Digest) -> list[Callable[[], object]]:
    """Return all operations that write into a cache."""
    return [
        lambda: cache.blobs.put(b"more"),
        lambda: record_blob(cache, "more", digest),
        lambda: cache.records.set_last("label", key("test", 1, {"name": "r"})),
        lambda: cache.records.remove(key("test", 1, {"name": "r"})),
        lambda: cache.lease([digest]),
        lambda: cache.index.save("scope", {"": 1}),
        lambda: publish_index(cache),
        lambda: cache.blobs.delete(digest),
        lambda: cache.secret,
        lambda: cache.preparing().__enter__(),
    ]


@as_root
def test_a_read_only_disk_is_said(tmp_path: Path) -> None:
    """EROFS is `StoreUnavailable`, on opening or on each write, and nothing changes."""
    with mounted(tmp_path / "m", "size=4m") as mount:
        with opened(f"{mount}/c") as cache:
            digest = cache.blobs.put(b"data")
            record = record_blob(cache, "r", digest)
        assert os.system(f"mount -o remount,ro {mount}") == 0
        with pytest.raises(StoreUnavailable, match="FLYTE_HOME"), opened(f"{mount}/new"):
            pass
        try:
            with opened(f"{mount}/c") as cache:
                assert (
                    cache.blobs.read(digest) == b"data" and cache.records.find(record.key) == record
                )
                for write in writes(cache, digest):
                    with pytest.raises(StoreUnavailable):
                        write()
        except StoreUnavailable as error:
            assert "FLYTE_HOME" in str(error)
        assert os.system(f"mount -o remount,rw {mount}") == 0
        with opened(f"{mount}/c") as cache:
            assert cache.blobs.put(b"more") and cache.records.find(record.key) == record


@as_root
def test_a_cache_of_someone_else_is_said(tmp_path: Path) -> None:
    """EACCES is `StoreUnavailable` for a user who may not write, and nothing changes."""
    with temporary() as folder:
        os.chmod(folder, 0o755)
        with opened(folder / "c") as cache:
            digest = cache.blobs.put(b"data")
            before = sorted(
                set(os.listdir(cache.folder)) - {"cache.sqlite-wal", "cache.sqlite-shm"}
            )
        code = (
            OPEN.replace(
                "cache = ",
                "from flyte_build.errors import StoreUnavailable\nimport"
                " psutil\nos.setuid(65534)\ntry: cache = ",
            )
            + "except StoreUnavailable as error: print('FLYTE_HOME' in str(error)); sys.exit()\nfor"
            " write in (lambda: cache.blobs.put(b'more'), lambda: cache.lease([]), lambda:"
            " cache.index.save('scope', {'': 1})):\n    try: write(); print('no error')\n   "
            " except StoreUnavailable: print(True)\n"
        )
        assert set(run(code, str(folder / "c")).splitlines()) == {"True"}
        with opened(folder / "c") as cache:
            assert (
                sorted(set(os.listdir(cache.folder)) - {"cache.sqlite-wal", "cache.sqlite-shm"})
                == before
            )
            assert cache.blobs.read(digest) == b"data"


@pytest.mark.skipif(
    not os.path.exists("/proc/self/mem"), reason="needs a file that cannot be read: /proc/self/mem"
)
def test_a_disk_that_cannot_be_read_is_said(cache: Cache) -> None:
    """EIO is `StoreUnavailable`, and not taken for damage of the blob.

    The blob is read once the disk recovers.
    """
    digest = cache.blobs.put(b"data")
    path = Path(cache.blobs.path(digest))
    path.rename(path.parent / "aside")
    path.symlink_to("/proc/self/mem")  # Reading its beginning is answered with EIO.
    for read in (cache.blobs.read, cache.blobs.verify):
        with pytest.raises(StoreUnavailable) as raised:
            read(digest)
        assert "The disk reports an error" in raised.value.hint
    path.unlink()
    (path.parent / "aside").rename(path)
    assert cache.blobs.read(digest) == b"data"


def test_a_file_where_the_cache_should_be_is_said(tmp_path: Path) -> None:
    """ENOTDIR is explained, with the setting that helps."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="FLYTE_HOME"), opened(tmp_path / "file" / "cache"):
        pass


@pytest.mark.parametrize("left", range(5))
def test_too_many_open_files_is_said_and_passes(tmp_path: Path, left: int) -> None:
    """EMFILE is a clear error anywhere, leaves no temporary file, and a second attempt works."""
    code = (
        OPEN
        + """
import resource
from flyte_build.errors import StoreUnavailable
before = cache.blobs.put(b"before")
def work():
    with cache.preparing():
        with cache.blobs.batch() as batch:
            for n in range(3):
                batch.add(b"new %d" % n)
        lease = cache.lease([before])
    lease.release()
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
free = os.open("/dev/null", os.O_RDONLY)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free + int(sys.argv[2]), limits[1]))
try:
    work()
except StoreUnavailable as error:
    print("refused", "ulimit" in str(error))
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
assert not list(cache.blobs.litter()) and not os.listdir(cache.folder + "/leases")
work()
print("done", len(list(cache.blobs.names())), len(os.listdir(cache.folder + "/leases")))
"""
    )
    lines = run(code, str(tmp_path), str(left)).splitlines()
    assert lines == ["refused True"] * (left < 3) + ["done 4 0"]


# --- Many processes


def test_eight_processes_write_the_same_and_different_things_at_once(tmp_path: Path) -> None:
    """All that eight concurrent processes write is there and right.

    All of them begin the cache at once.
    """
    code = (
        OPEN
        + """
me = int(sys.argv[2])
for n in range(25):
    with cache.preparing():
        with cache.blobs.batch() as batch:
            shared = batch.add(b"shared %d" % n * 500)
            own = batch.add(b"own %d %d" % (me, n))
        cache.records.add(Record(key("shared", 1, {"n": n}), "k", shared, (shared,), {}))
        cache.records.add(Record(key("own", 1, {"n": n, "me": me}), "k", own, (own, shared), {}))
        cache.records.set_last("label", key("own", 1, {"n": n, "me": me}))
    assert cache.blobs.read(shared) and cache.records.find(key("shared", 1, {"n": n})).artifact == shared
"""
    )
    started = [process(code, str(tmp_path), str(n)) for n in range(8)]
    assert [(each.communicate(), each.returncode) for each in started] == [(("", ""), 0)] * 8
    with opened(tmp_path) as cache:
        assert len(list(cache.blobs.names())) == 25 + 8 * 25 and not list(cache.blobs.litter())
        assert cache.records.count() == 25 + 8 * 25 and verify_blobs(cache, nothing) == (225, [])
        assert cache.records.last("label") is not None


LEASE = (
    OPEN + "lease = cache.lease([Digest(d) for d in sys.argv[2:]]); print('held', flush=True);"
    " sys.stdin.read()"
)


def test_a_lease_ends_with_its_owner(tmp_path: Path) -> None:
    """A held lease is listed; kill -9 of its owner ends it, and its file goes."""
    digest = Digest.of(b"a")
    with opened(tmp_path) as cache, process(LEASE, str(tmp_path), digest) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "held\n"
        assert cache.leased() == {digest} and cache.statistics()["leases"] == 1
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert os.listdir(f"{cache.folder}/leases") and cache.leased() == set()
        assert os.listdir(f"{cache.folder}/leases") == []


def test_a_lease_of_this_process_is_listed_until_it_is_released(cache: Cache) -> None:
    """A digest is leased as long as any of the leases with it is held."""
    one, two = Digest.of(b"1"), Digest.of(b"2")
    first, second = cache.lease([one, two]), cache.lease([two])
    assert cache.leased() == {one, two}
    first.release()
    assert cache.leased() == {two}
    second.release()
    assert cache.leased() == set() and os.listdir(f"{cache.folder}/leases") == []


@pytest.mark.parametrize("content", [b"", b"junk", b"{}"])
def test_junk_among_the_leases_is_removed(cache: Cache, content: bytes) -> None:
    """A file that no process holds is not a lease, whatever its contents, and is removed."""
    Path(cache.folder, "leases", "junk.lease").write_bytes(content)
    assert cache.leased() == set() and os.listdir(f"{cache.folder}/leases") == []


def test_leases_that_end_while_they_are_read_are_no_error(tmp_path: Path) -> None:
    """Leases that end in the midst of a collection are not an error."""
    code = (
        OPEN + "\nfor n in range(3000):\n    with cache.preparing(): lease = cache.lease([])\n   "
        " lease.release()\n"
    )
    with opened(tmp_path) as cache:
        others = [process(code, str(tmp_path)) for _ in range(2)]
        while any(each.poll() is None for each in others):
            with cache.collecting():
                assert cache.leased() == set()
        assert [each.communicate()[1] for each in others] == ["", ""]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """The lock of a killed process is free."""
    code = OPEN + "\nwith cache.preparing():\n    print('held', flush=True); sys.stdin.read()"
    with opened(tmp_path) as cache, process(code, str(tmp_path)) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "held\n"
        owner.kill()
        owner.wait()
        with cache.collecting():
            assert cache.blobs.put(b"data")


# --- The stat index


def edit_in_place(path: Path) -> None:
    """Edit at once, with the same size."""
    with open(path, "r+b") as file:
        file.write(b"new")


def edit_and_set_the_time_back(path: Path) -> None:
    """Edit with the same size and modification time."""
    times = path.stat()
    edit_in_place(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace_by_rename(path: Path) -> None:
    """Replace with the same size and modification time, but another inode."""
    other = path.with_name("other")
    other.write_bytes(b"new")
    times = path.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.rename(other, path)


def edit_through_a_hard_link(path: Path) -> None:
    """Edit under another name, outside of the project, with the same size and modification time."""
    other = path.parent.parent / "elsewhere"
    os.link(path, other)
    edit_and_set_the_time_back(other)
    os.unlink(other)


@pytest.mark.parametrize("settled", [False, True], ids=["fresh", "settled"])
@pytest.mark.parametrize(
    "edit", [edit_in_place, edit_and_set_the_time_back, replace_by_rename, edit_through_a_hard_link]
)
def test_an_edit_of_the_same_size_is_always_seen(
    cache: Cache, project: Path, edit: Callable[[Path], None], settled: bool
) -> None:
    """An edit of the same size is seen right after a scan as well as long after it."""
    path = project / "a.py"
    for _ in range(10):
        path.write_bytes(b"old")
        old = tree_of(cache, project)
        if settled:
            clock_moves(project.parent)
            assert tree_of(cache, project).digest == old.digest
        edit(path)
        assert tree_of(cache, project).digest != old.digest
        with opened(project.parent / "fresh") as fresh:
            assert tree_of(fresh, project).digest == tree_of(cache, project).digest


def test_a_touched_file_is_the_same_tree(cache: Cache, project: Path) -> None:
    """Times are not part of a tree, and a touched file is read once more."""
    write_files(project, {"a.py": b"a", "b.py": b"b"})
    before = tree_of(cache, project)
    clock_moves(project.parent)
    tree_of(cache, project)
    os.utime(project / "a.py", (1, 1))
    found, counters = scan(cache, project)
    assert counters.snapshot()["files_read"] == 1 and not found.unchanged
    assert tree_of(cache, project).digest == before.digest


def test_a_file_that_changes_while_it_is_read_is_never_half_read(
    cache: Cache, tmp_path: Path
) -> None:
    """Reading a changing file fails, or returns the size and bytes of one state that it had."""
    path = tmp_path / "growing"
    path.write_bytes(b"x")
    ended = threading.Event()

    def write() -> None:
        with open(path, "ab", buffering=0) as file:
            while not ended.is_set():
                file.write(b"x" * 100)
                if file.tell() > 200_000:
                    file.truncate(1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            try:
                reading = hash_file(str(path), Counters(), 1 << 20)
            except FileUnstable:
                continue
            assert (
                reading.data is not None
                and reading.digest == Digest.of(reading.data)
                and not reading.data.strip(b"x")
            )
    finally:
        ended.set()
        writer.join()


def test_a_tree_never_holds_a_size_that_its_content_had_not(cache: Cache, project: Path) -> None:
    """Size and digest of an entry are from one moment, even if the file grows during scans."""
    code = """
import sys
with open(sys.argv[1], "ab", buffering=0) as file:
    print("writing", flush=True)
    n = 0
    while True:
        file.write(b"x")
        for _ in range(n % 997): pass
        n += 1
        if n % 20_000 == 0: file.truncate(1)
"""
    path = project / "growing.log"
    path.write_bytes(b"x")
    with process(code, str(path)) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
        try:
            for _ in range(1500):
                try:
                    (entry,) = scan(cache, project)[0].entries()
                except FileUnstable:
                    continue
                assert Digest.of(b"x" * entry.size).hex.encode() == entry.content
        finally:
            writer.kill()


def test_a_damaged_entry_of_the_stat_index_costs_a_reading_only(
    cache: Cache, project: Path
) -> None:
    """An entry of the stat index with a wrong checksum counts as unknown."""
    write_files(project, {"a.py": b"a"})
    before = tree_of(cache, project)
    cache.database.execute("UPDATE stat SET data=cast(x'00' || substr(data, 2) AS BLOB)")
    assert cache.index.load(f"tree 2:{project}") == {}
    assert tree_of(cache, project).digest == before.digest


def test_every_step_of_the_size_is_read(tmp_path: Path) -> None:
    """Files whose size is around that of a read are read completely."""
    path = tmp_path / "file"
    for size in itertools.chain(range(3), ((1 << 20) + d for d in (-1, 0, 1)), [(2 << 20) + 1]):
        data = os.urandom(size)
        path.write_bytes(data)
        seen: list[bytes] = []
        reading = hash_file(str(path), Counters(), 1 << 20, seen.append)
        assert (
            reading.digest == Digest.of(data)
            and b"".join(seen) == data
            and reading.data == (data if size <= 1 << 20 else None)
        )


def test_blobs_need_no_more_than_a_folder(tmp_path: Path) -> None:
    """The quarantine's directory is created only when it is needed."""
    blobs = Blobs(str(tmp_path), str(tmp_path / "a" / "b"), Counters())
    digest = blobs.put(b"data")
    flip(blobs.path(digest))
    assert not blobs.verify(digest) and os.listdir(tmp_path / "a" / "b") == [digest.hex]


def test_the_index_names_the_last_bundle_of_each_project(cache: Cache, project: Path) -> None:
    """`index.json` names the last bundle of each project."""
    write_files(project, {"a.py": b"a"})
    made = make_bundle(cache, project, "bundle:/home/me/a b.py all")
    publish_index(cache)
    document = json.loads(Path(cache.folder, "index.json").read_text())
    (manifest,) = document["manifests"]
    assert manifest["digest"] == made.manifest and manifest["size"] == len(
        cache.blobs.read(made.manifest)
    )


def test_an_index_can_be_written_although_a_manifest_is_gone(cache: Cache, project: Path) -> None:
    """`index.json` is written without a manifest in quarantine, and with all others."""
    write_files(project, {"a.py": b"a"})
    gone = make_bundle(cache, project, "bundle:a")
    write_files(project, {"b.py": b"b"})
    made = make_bundle(cache, project, "bundle:b")
    cache.blobs.condemn(gone.manifest, "a test")
    publish_index(cache)
    assert [
        each["digest"]
        for each in json.loads(Path(cache.folder, "index.json").read_text())["manifests"]
    ] == [made.manifest]
