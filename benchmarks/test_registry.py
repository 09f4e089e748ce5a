"""Repositories on a registry, against skopeo and plain calls of oras, on the same server."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import FLYTE, HELLO, command, forget, paired, report
from flyte_build.cas.blobs import Blobs
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.registry import open_repository
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.retry_budget import RetryBudget
from flyte_build.cas.registry.tags import record_tag
from flyte_build.cas.registry.transfer import missing
from tests.support.needs import need
from tests.support.registries import Server, serve

SIZE = 200 << 20
ROUNDS = 3
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry on this machine."""
    need("skopeo")
    with serve(tmp_path_factory.mktemp("registry")) as server:
        yield server


def opened(server: Server) -> Repository:
    """Open a new, empty repository."""
    return open_repository(
        RepositoryName.parse(server.repository(f"speed/{uuid.uuid4().hex}")),
        Counters(),
        RetryBudget(),
    )


def image(folder: Path) -> Descriptor:
    """Write an image of one random layer as a layout with the tag `x`, and return the layer."""
    blobs = Blobs(f"{folder}/blobs/sha256", f"{folder}/quarantine", Counters())
    os.makedirs(blobs.folder)
    with blobs.batch() as batch, batch.writer() as writer:
        for _ in range(SIZE >> 20):
            writer.write(os.urandom(1 << 20))
        layer = Descriptor(LAYER, writer.finish(), SIZE)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        }
    ).encode()
    manifest = Manifest.of_layers(Descriptor(CONFIG, blobs.put(config), len(config)), [layer])
    blobs.put(manifest.data)
    entry = {
        **manifest.descriptor.document(),
        "annotations": {"org.opencontainers.image.ref.name": "x"},
    }
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return layer


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def test_transfers_against_skopeo(
    benchmark: BenchmarkFixture, server: Server, tmp_path: Path
) -> None:
    """An upload and a download of 200 MB are compared to skopeo's.

    Each round has bytes that the registry has not seen.
    """
    up: list[tuple[float, float]] = []
    down: list[tuple[float, float]] = []
    for at in range(ROUNDS):
        ours, theirs = tmp_path / f"ours{at}", tmp_path / f"theirs{at}"
        layer = image(ours)
        image(theirs)
        repository, blobs = (
            opened(server),
            Blobs(f"{ours}/blobs/sha256", f"{ours}/quarantine", Counters()),
        )
        target = f"docker://{server.repository(f'speed/{uuid.uuid4().hex}')}:x"
        copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]

        def upload(
            layer: Descriptor = layer, blobs: Blobs = blobs, repository: Repository = repository
        ) -> None:
            repository.upload(layer, lambda: blobs.open(layer.digest), lambda count: None)

        def download(
            layer: Descriptor = layer, blobs: Blobs = blobs, repository: Repository = repository
        ) -> None:
            with blobs.batch() as batch, batch.writer() as writer:
                repository.download(layer, writer, lambda count: None)
                writer.finish(layer.digest)

        there = partial(subprocess.run, [*copy, f"oci:{theirs}:x", target], check=True)
        up.append((timed(upload), timed(there)))
        blobs.delete(layer.digest)
        back = partial(subprocess.run, [*copy, target, f"oci:{tmp_path}/back{at}:x"], check=True)
        down.append((timed(download), timed(back)))
    benchmark.pedantic(lambda: None)
    for name, pairs in (("upload", up), ("download", down)):
        seconds, base = (statistics.median(column) for column in zip(*pairs, strict=True))
        benchmark.extra_info[name] = base / seconds
        report(
            f"skopeo's {name} of 200 MB to ours",
            base / seconds,
            "at least 0.8",
            f"{base:.2f} s to {seconds:.2f} s",
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report(
        "memory of this process, MB", peak, "at most 100", "the peak, pytest and all else included"
    )


def test_existence_checks_against_oras(benchmark: BenchmarkFixture, server: Server) -> None:
    """Existence checks of a thousand blobs or records are compared to one request after the other.

    Blobs take a request each, records a list of tags.
    """
    import oras.provider

    repository = opened(server)
    plain = oras.provider.Registry(server.host, insecure=True)
    container = plain.get_container(str(repository.name))
    blobs = [Descriptor(LAYER, Digest.of(b"%d" % at), 1) for at in range(1000)]

    def sequential() -> None:
        for blob in blobs:
            plain.blob_exists({"digest": blob.digest}, container)

    benchmark.pedantic(lambda: missing(blobs, repository), rounds=2)
    seconds, base = paired(lambda: missing(blobs, repository), sequential, 3)
    benchmark.extra_info["blobs"] = seconds / base
    report(
        "1,000 blobs: is each there?",
        seconds / base,
        "at most 0.25",
        f"{seconds:.2f} s to {base:.2f} s",
    )
    keys = [Key(Digest.of(b"%d" % at)) for at in range(1000)]
    seconds, base = paired(
        lambda: {record_tag(key) for key in keys}.difference(repository.tags()), sequential, 3
    )
    benchmark.extra_info["records"] = seconds / base
    report(
        "1,000 records: is each there?",
        seconds / base,
        "at most 0.25",
        f"{seconds:.3f} s to {base:.2f} s",
    )


@pytest.mark.parametrize("size", ["hello", "10,000 files"])
def test_the_first_task_on_a_fresh_machine(
    benchmark: BenchmarkFixture, server: Server, tree: Path, tmp_path: Path, size: str
) -> None:
    """The first task on a fresh machine is compared to a warm run and the blobs' transfer."""
    project = tree if size != "hello" else tmp_path
    (project / "hello.py").write_text(HELLO)
    place = server.repository(f"speed/{uuid.uuid4().hex}")
    run = [
        FLYTE,
        "run",
        "--copy-style",
        "all" if size != "hello" else "loaded_modules",
        "--registry",
        place,
        "hello.py",
        "hello",
    ]
    warm, *fresh = homes = [
        tmp_path / name for name in ("warm", *(f"fresh{at}" for at in range(5)))
    ]
    command(*run, cwd=project, home=warm)()
    pairs = []
    # None is deleted in between: a file system may pass over what was just freed, slowly.
    for home in fresh:
        pairs.append(
            (
                timed(command(*run, cwd=project, home=home)),
                timed(command(*run, cwd=project, home=warm)),
            )
        )
    benchmark.pedantic(lambda: None)
    transfers = [transfer(place, tmp_path / f"transfer{at}") for at in range(3)]
    seconds, base = (statistics.median(column) for column in zip(*pairs, strict=True))
    moved = statistics.median(transfers)
    benchmark.extra_info["ratio"] = (seconds - moved) / base
    report(
        f"first task on a fresh machine, {size}",
        (seconds - moved) / base,
        "at most 3" if size == "hello" else "at most 8",
        f"{seconds:.2f} s, of which {moved:.2f} s for the transfer, to {base:.2f} s",
    )
    for home in homes:
        forget(home)


def transfer(place: str, folder: Path) -> float:
    """Return the seconds for fetching all blobs of a repository's only record.

    All modules are loaded before.
    """
    os.makedirs(f"{folder}/blobs")
    repository = open_repository(RepositoryName.parse(place), Counters(), RetryBudget())
    blobs = Blobs(f"{folder}/blobs", f"{folder}/quarantine", Counters())
    began = time.perf_counter()
    index = repository.manifest(next(tag for tag in repository.tags() if tag.startswith("record.")))
    assert index is not None
    manifest = repository.manifest(index.manifests[0].digest)
    assert manifest is not None
    for blob in manifest.blobs():
        with blobs.batch() as batch, batch.writer() as writer:
            repository.download(blob, writer, lambda count: None)
            writer.finish(blob.digest)
    return time.perf_counter() - began
