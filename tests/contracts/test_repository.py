"""All kinds of repositories fulfil the protocol.

They are in memory, in a directory, and on registries with and without logins, TLS and proxies.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import EMPTY_CONFIG, Manifest, empty_config
from flyte_build.cas.registry.memory import MemoryRegistry
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.errors import (
    BlobCorrupt,
    BlobMissing,
    RegistryRefused,
)
from tests.support.caches import opened
from tests.support.clients import (
    WITH_TESTS,
    artifact_of,
    blob_of,
    download,
    log_in,
    no_settings,  # noqa: F401
    repository_of,
    transfer_of,
    upload,
)
from tests.support.files import flip
from tests.support.registries import ForwardProxy
from tests.support.servers import Servers

DATA = bytes(range(256)) * 4000
REGISTRIES = ("plain", "password", "tokens", "tls", "tokens-tls", "proxy", "tls-proxy")
DURABLE = ("directory", *REGISTRIES)


@dataclass
class Place:
    """A place for repositories of one kind.

    Every `repository` of the same path is the same one, newly opened.
    """

    kind: str
    base: str
    proxy: ForwardProxy | None = None
    memory: MemoryRegistry = field(default_factory=MemoryRegistry)

    def name(self, path: str = "main") -> RepositoryName:
        return RepositoryName.parse(f"{self.base}/{path}")

    def repository(self, path: str = "main", counters: Counters | None = None) -> Repository:
        if self.kind == "memory":
            return self.memory.repository(self.name(path))
        return repository_of(self.name(path), counters)


@pytest.fixture(params=("memory", *DURABLE))
def place(
    request: pytest.FixtureRequest,
    servers: Servers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    kind = str(request.param)
    if kind == "memory":
        return Place(kind, "memory.test")
    if kind == "directory":
        return Place(kind, f"oci:{tmp_path}/layouts")
    options = {"password": "password" in kind, "token": "tokens" in kind, "tls": "tls" in kind}
    server = servers.registry(**{name: True for name, wanted in options.items() if wanted})
    if server.ca:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.ca))
    if options["password"] or options["token"]:
        log_in(server.host)
    proxy = servers.proxy() if "proxy" in kind else None
    if proxy:
        monkeypatch.setenv("HTTPS_PROXY" if server.ca else "HTTP_PROXY", proxy.url)
    return Place(kind, f"{server.host}/{uuid.uuid4().hex}", proxy)


def test_manifests_are_found_by_tag_and_digest(place: Place, cache: Cache) -> None:
    repository = place.repository()
    manifest = artifact_of(cache, b"layer", title="it")
    assert (
        repository.manifest("one") is None
        and repository.manifest(manifest.digest) is None
        and repository.tags() == []
    )
    for blob in manifest.blobs():
        assert not repository.has(blob)
        upload(repository, cache, cache.blobs.read(blob.digest))
        assert repository.has(blob)
    repository.put_manifest(manifest, "one")
    repository.put_manifest(manifest, "two")
    repository.put_manifest(manifest)
    index = Manifest.of_manifests([manifest.descriptor], artifact_type="application/vnd.test.index")
    repository.put_manifest(index, "index")
    for reference, expected in (
        ("one", manifest),
        ("two", manifest),
        (manifest.digest, manifest),
        ("index", index),
        (index.digest, index),
    ):
        found = place.repository().manifest(reference)
        assert found == expected and found.digest == expected.digest
    assert sorted(repository.tags()) == ["index", "one", "two"]
    other = artifact_of(cache, b"layer", title="other")
    repository.put_manifest(other, "one")
    assert repository.manifest("one") == other and repository.manifest("two") == manifest


@pytest.mark.parametrize("data", [b"", b"\0", DATA], ids=["empty", "byte", "megabyte"])
def test_blobs_go_up_and_come_down_and_their_bytes_are_counted(
    place: Place, tmp_path: Path, data: bytes
) -> None:
    up: list[int] = []
    down: list[int] = []
    counters = Counters()
    repository = place.repository(counters=counters)
    with opened(tmp_path / "one") as one, opened(tmp_path / "two") as two:
        blob = upload(repository, one, data, up.append)
        assert download(repository, two, blob, down.append) == data
        assert sum(up) == sum(down) == len(data)
        with pytest.raises(BlobMissing):
            download(repository, two, blob_of(b"never there"))
    assert not repository.has(Descriptor(blob.media_type, blob.digest, len(data) + 1))
    if place.kind in REGISTRIES:
        assert counters.snapshot()["bytes_received"] == len(data)
        sent = counters.snapshot()["bytes_sent"]
        # The proxy may end a kept connection: all is sent again.
        assert sent == len(data) or (place.proxy and sent > len(data))


def test_a_manifest_that_names_what_is_not_there_is_not_kept(place: Place, cache: Cache) -> None:
    repository = place.repository()
    upload(repository, cache, EMPTY_CONFIG)
    with pytest.raises(BlobMissing, match=r"does not have"):
        repository.put_manifest(Manifest.of_layers(empty_config(), [blob_of(b"gone")]), "tag")
    with pytest.raises(BlobMissing):
        repository.put_manifest(
            Manifest.of_manifests([artifact_of(cache, b"gone").descriptor]), "tag"
        )
    assert repository.manifest("tag") is None and repository.tags() == []


def test_bytes_that_are_not_the_blob_are_not_kept(place: Place, tmp_path: Path) -> None:
    repository = place.repository()
    blob = blob_of(b"right")
    for wrong in (b"wrong", b"too long", b"no"):
        (tmp_path / "blob").write_bytes(wrong)
        moved: list[int] = []
        with pytest.raises((RegistryRefused, BlobCorrupt)):
            repository.upload(blob, lambda: (tmp_path / "blob").open("rb"), moved.append)
        assert not repository.has(blob)


def test_a_manifest_is_deleted_with_its_tags_and_nothing_else(place: Place, cache: Cache) -> None:
    repository = place.repository()
    artifact = artifact_of(cache, b"layer")
    transfer_of(cache).push(artifact, repository, "artifact")
    records = [
        Manifest.of_manifests([artifact.descriptor], annotations={"name": name}) for name in "ab"
    ]
    for record, tags in zip(records, (["a", "also-a"], ["b"]), strict=True):
        for tag in tags:
            repository.put_manifest(record, tag)
    repository.delete_manifest(records[0].digest)
    repository.delete_manifest(records[0].digest)
    again = place.repository()
    assert (
        again.manifest("a") is None
        and again.manifest("also-a") is None
        and again.manifest(records[0].digest) is None
    )
    assert again.manifest("b") == records[1] and again.manifest("artifact") == artifact
    assert sorted(again.tags()) == ["artifact", "b"]
    assert download(again, cache, artifact.layers[0]) == b"layer"


@pytest.mark.slow
def test_many_threads_use_one_repository(place: Place, tmp_path: Path) -> None:
    """Many threads use one repository from its first use on, with tokens and TLS still unknown."""
    repository = place.repository()

    def work(number: int) -> None:
        with opened(tmp_path / f"cache{number}") as cache:
            manifest = artifact_of(cache, os.urandom(70_000), b"of all", str(number).encode())
            transfer_of(cache).push(manifest, repository, f"tag{number}")
            assert repository.manifest(f"tag{number}") == manifest
        with opened(tmp_path / f"other{number}") as cache:
            assert transfer_of(cache).pull(manifest.digest, repository) == manifest
            assert all(cache.blobs.verify(blob.digest) for blob in manifest.blobs())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert sorted(repository.tags()) == sorted(f"tag{number}" for number in range(16))


def test_a_blob_of_another_repository_is_mounted_and_not_sent(place: Place, cache: Cache) -> None:
    blob = upload(place.repository("one"), cache, DATA)
    opens, moved, counters = 0, list[int](), Counters()

    def source() -> BinaryIO:
        nonlocal opens
        opens += 1
        return cache.blobs.open(blob.digest)

    other = place.repository("two", counters)
    assert not other.has(blob)
    other.upload(blob, source, moved.append, place.name("one"))
    assert place.repository("two").has(blob) and sum(moved) == blob.size
    if place.kind in REGISTRIES:
        assert opens == 0 and counters.snapshot()["bytes_sent"] == 0
    other.upload(blob_of(b"new"), lambda: _stream(cache, b"new"), moved.append, place.name("one"))
    assert download(place.repository("two"), cache, blob_of(b"new")) == b"new"


def _stream(cache: Cache, data: bytes) -> BinaryIO:
    return cache.blobs.open(cache.blobs.put(data))


def test_an_artifact_is_pushed_and_pulled_with_its_progress(place: Place, tmp_path: Path) -> None:
    up: list[tuple[int, int]] = []
    down: list[tuple[int, int]] = []
    layers = [os.urandom(size) for size in (3_000_000, 200_000, 70_000, 10)]
    repository = place.repository()
    with opened(tmp_path / "one") as one, opened(tmp_path / "two") as two:
        manifest = artifact_of(one, *layers)
        transfer_of(one, lambda *step: up.append(step)).push(manifest, repository, "tag")
        transfer_of(two, lambda *step: down.append(step)).pull(manifest.digest, repository)
        assert [two.blobs.read(blob.digest) for blob in manifest.layers] == layers
        assert Manifest.parse(two.blobs.read(manifest.digest)) == manifest
        total = sum(map(len, layers)) + len(EMPTY_CONFIG)
        for steps in (up, down):
            assert steps[-1] == (total, total) and all(
                0 <= step[0] <= step[1] == total for step in steps
            )
        again: list[tuple[int, int]] = []
        transfer_of(two, lambda *step: again.append(step)).pull(manifest.digest, repository)
        assert again == []
        with pytest.raises(BlobMissing):
            transfer_of(two).pull(Digest.of(b"unknown"), repository)


def test_a_corrupt_blob_on_this_machine_is_not_sent_and_goes_to_quarantine(
    place: Place, cache: Cache
) -> None:
    manifest = artifact_of(cache, DATA)
    flip(cache.blobs.path(Digest.of(DATA)))
    repository = place.repository()
    with pytest.raises(BlobCorrupt):
        transfer_of(cache).push(manifest, repository, "tag")
    assert (
        repository.manifest("tag") is None
        and not repository.has(blob_of(DATA))
        and not cache.blobs.has(Digest.of(DATA))
    )


@pytest.mark.slow
@pytest.mark.parametrize("place", DURABLE, indirect=True)
def test_a_large_blob_needs_little_memory(place: Place, tmp_path: Path) -> None:
    """A blob of 40 MB is moved both ways, while the process grows by less than 25 MB."""
    code = """
import os, resource, sys
from flyte_build.cas.registry.descriptor import Descriptor
from tests.support.clients import repository_of
from tests.support.caches import opened

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 if sys.platform == "linux" else 1024)

repository = repository_of(sys.argv[1])
with opened(sys.argv[2] + "/one") as one, opened(sys.argv[2] + "/two") as two:
    with one.blobs.batch() as batch, batch.writer() as writer:
        for _ in range(40):
            writer.write(os.urandom(1 << 20))
        digest = writer.finish()
    blob = Descriptor("application/octet-stream", digest, 40 << 20)
    repository.has(blob)
    before = peak()
    repository.upload(blob, lambda: one.blobs.open(digest), lambda count: None)
    with two.blobs.batch() as batch, batch.writer() as writer:
        repository.download(blob, writer, lambda count: None)
        writer.finish()
    assert two.blobs.verify(digest)
    assert peak() - before < 25_000, peak() - before
"""
    command = [sys.executable, "-P", "-c", WITH_TESTS + code, place.name().text, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
