"""A directory as a repository, shared by processes that are killed, damaged, and used by skopeo.

Some tests run on registries as well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.layout import TAG, LayoutRepository
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.published_record import PublishedRecord, record_index
from flyte_build.cas.registry.tags import record_tag
from flyte_build.errors import (
    BlobMissing,
    RegistryCorrupt,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)
from tests.support.caches import make_bundle, opened
from tests.support.clients import (
    WITH_TESTS,
    artifact_of,
    blob_of,
    download,
    repository_of,
    transfer_of,
    upload,
)
from tests.support.clients import no_settings as no_settings
from tests.support.files import as_root, flip, mounted, write_files
from tests.support.needs import need
from tests.support.registries import Server

PUSHES = """
import itertools, sys
from tests.support.clients import WITH_TESTS, artifact_of, repository_of, transfer_of
from tests.support.caches import opened

with opened(sys.argv[2]) as cache:
    repository = repository_of(sys.argv[1])
    for number in itertools.count() if sys.argv[4] == "all" else range(int(sys.argv[4])):
        manifest = artifact_of(cache, f"{sys.argv[3]}{number // 10}".encode() * 1000)
        transfer_of(cache).push(manifest, repository, f"{sys.argv[3]}{number}")
        print(number, flush=True)
"""


def pushes(folder: Path, cache: Path, name: str, count: str) -> subprocess.Popen[str]:
    """Start a process that pushes artifacts, each under ten tags, and reports each of them."""
    command = [
        sys.executable,
        "-P",
        "-c",
        WITH_TESTS + PUSHES,
        f"oci:{folder}",
        str(cache),
        name,
        count,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def check(folder: Path, tmp_path: Path) -> list[str]:
    """Return all tags of a layout; check that each leads to a manifest with intact blobs."""
    repository = repository_of(f"oci:{folder}")
    tags = repository.tags()
    with opened(tmp_path / uuid.uuid4().hex) as cache:
        for tag in tags:
            manifest = repository.manifest(tag)
            assert manifest is not None
            transfer_of(cache).pull(manifest.digest, repository)
    return tags


def test_processes_push_at_once_and_no_tag_is_lost(tmp_path: Path) -> None:
    started = [
        pushes(tmp_path / "layout", tmp_path / f"cache{name}", name, "60") for name in "abcd"
    ]
    for process in started:
        process.communicate()
        assert process.returncode == 0
    assert sorted(check(tmp_path / "layout", tmp_path)) == sorted(
        f"{name}{number}" for name in "abcd" for number in range(60)
    )


@pytest.mark.slow
def test_a_push_that_is_killed_leaves_a_layout_that_is_whole(tmp_path: Path) -> None:
    """A push that is killed at any time leaves an intact layout with all that was reported.

    Another process goes on at once, and leftovers are swept.
    """
    layout, promised = tmp_path / "layout", set[str]()
    for round_number in range(12):
        name = f"r{round_number}-"
        with pushes(layout, tmp_path / f"cache{round_number}", name, "all") as process:
            assert process.stdout is not None
            for _ in range(3):
                process.stdout.readline()
            time.sleep(0.003 * round_number)
            process.send_signal(signal.SIGKILL)
            promised |= {f"{name}{number}" for number in range(3)}
        json.loads((layout / "index.json").read_bytes())
    assert promised <= set(check(layout, tmp_path))
    repository = repository_of(f"oci:{layout}")
    assert isinstance(repository, LayoutRepository)
    list(repository.sweep(set(), dry_run=False))
    assert not [
        each for each in (layout / "blobs" / "sha256").iterdir() if each.name.startswith(".")
    ]
    assert promised <= set(check(layout, tmp_path))


NO_INDEXES = {
    "empty": b"",
    "cut": b'{"schemaVersion": 2, "manif',
    "list": b"[]",
    "null": b'{"manifests": null}',
    "object": b'{"manifests": {}}',
    "text": b'{"manifests": ""}',
    "nothing": b"{}",
    "deep": b"[" * 200_000,
    "binary": b"\xff\xfe\0",
}


@pytest.mark.parametrize("index", NO_INDEXES.values(), ids=NO_INDEXES)
def test_an_index_that_is_none_is_an_error_and_is_not_overwritten(
    tmp_path: Path, cache: Cache, index: bytes
) -> None:
    repository = repository_of(f"oci:{tmp_path}/layout")
    manifest = artifact_of(cache, b"layer")
    transfer_of(cache).push(manifest, repository, "tag")
    (tmp_path / "layout" / "index.json").write_bytes(index)
    for ask in (
        lambda: repository.manifest("tag"),
        repository.tags,
        lambda: repository.put_manifest(manifest, "tag"),
    ):
        with pytest.raises(RegistryCorrupt, match=r"index\.json of oci:.*/layout is malformed"):
            ask()
    assert (tmp_path / "layout" / "index.json").read_bytes() == index
    (tmp_path / "layout" / "index.json").unlink()
    repository.put_manifest(manifest, "tag")
    assert repository.manifest("tag") == manifest


STRANGE: dict[str, Any] = {
    "text": "a",
    "null": None,
    "list": [],
    "no-digest": {"mediaType": "a", "size": 1, "annotations": {TAG: "strange"}},
    "digest": {"mediaType": "a", "digest": "sha512:0", "size": 1, "annotations": {TAG: "strange"}},
    "size": {
        "mediaType": "a",
        "digest": str(Digest.of(b"")),
        "size": "1",
        "annotations": {TAG: "strange"},
    },
    "annotations": {
        "mediaType": "a",
        "digest": str(Digest.of(b"")),
        "size": 1,
        "annotations": ["a"],
    },
}


@pytest.mark.parametrize("entry", STRANGE.values(), ids=STRANGE)
def test_a_strange_entry_is_left_alone_and_kept(tmp_path: Path, cache: Cache, entry: Any) -> None:
    """A strange entry is kept, and does not affect reading, writing, deleting and sweeping.

    The error for its tag says where the entry is.
    """
    repository = repository_of(f"oci:{tmp_path}/layout")
    assert isinstance(repository, LayoutRepository)
    one, two = artifact_of(cache, b"one"), artifact_of(cache, b"two")
    transfer_of(cache).push(one, repository, "one")
    path = tmp_path / "layout" / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "manifests": [entry, *index["manifests"]]}))
    transfer_of(cache).push(two, repository, "two")
    assert repository.manifest("one") == one and repository.manifest("two") == two
    repository.delete_manifest(two.digest)
    assert {digest for digest, _ in repository.sweep(set(), dry_run=False)} == {Digest.of(b"two")}
    assert transfer_of(cache).pull(one.digest, repository) == one
    assert json.loads(path.read_text())["manifests"] == [entry, *index["manifests"]]
    if isinstance(entry, dict) and TAG in entry["annotations"]:
        with pytest.raises(RegistryCorrupt, match=f"strange in the index of oci:{tmp_path}/layout"):
            repository.manifest("strange")


def test_a_folder_that_holds_other_things_is_not_made_a_layout(
    tmp_path: Path, cache: Cache
) -> None:
    """A directory with other files is not made a layout: a `.gitignore` would hide all of them."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "main.py").write_text("")
    repository = repository_of(f"oci:{tmp_path}/project")
    assert repository.tags() == [] and repository.manifest("tag") is None
    with pytest.raises(
        RegistryRefused, match=f"oci:{tmp_path}/project is not an image layout"
    ) as raised:
        transfer_of(cache).push(artifact_of(cache, b"layer"), repository, "tag")
    assert "main.py" in raised.value.why and f"oci:{tmp_path}/project/cache" in raised.value.hint
    assert [each.name for each in (tmp_path / "project").iterdir()] == ["main.py"]
    (tmp_path / "empty").mkdir()
    transfer_of(cache).push(
        artifact_of(cache, b"layer"), repository_of(f"oci:{tmp_path}/empty"), "tag"
    )
    assert (tmp_path / "empty" / ".gitignore").exists()


def test_the_layout_of_another_tool_gets_no_gitignore_and_what_it_lacks(
    tmp_path: Path, cache: Cache
) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (tmp_path / "other.txt").write_text("")
    repository = repository_of(f"oci:{tmp_path}")
    assert repository.tags() == [] and not repository.has(blob_of(b""))
    manifest = artifact_of(cache, b"layer")
    transfer_of(cache).push(manifest, repository, "tag")
    assert repository.manifest("tag") == manifest and not (tmp_path / ".gitignore").exists()


def test_what_was_made_by_halves_is_completed(tmp_path: Path, cache: Cache) -> None:
    """A layout that a killed process has left incomplete is completed."""
    manifest = artifact_of(cache, b"layer")
    whole = tmp_path / "whole"
    transfer_of(cache).push(manifest, repository_of(f"oci:{whole}"), "tag")
    (whole / "oci-layout").unlink()
    transfer_of(cache).push(manifest, repository_of(f"oci:{whole}"), "again")
    assert (
        sorted(repository_of(f"oci:{whole}").tags()) == ["again", "tag"]
        and (whole / "oci-layout").exists()
    )


@pytest.mark.parametrize(
    ("layout", "error", "words"),
    [
        ('{"imageLayoutVersion": "9.0.0"}', RegistryRefused, 'is a layout of version "9.0.0"'),
        ('{"imageLayoutVersion": null}', RegistryRefused, "is a layout of version null"),
        ("", RegistryCorrupt, "oci-layout of .* is malformed"),
        ("[]", RegistryCorrupt, "oci-layout of .* is malformed"),
    ],
)
def test_a_layout_of_another_version_is_refused(
    tmp_path: Path, cache: Cache, layout: str, error: type[RegistryError], words: str
) -> None:
    transfer_of(cache).push(
        artifact_of(cache, b"layer"), repository_of(f"oci:{tmp_path}/layout"), "tag"
    )
    (tmp_path / "layout" / "oci-layout").write_text(layout)
    for ask in (
        lambda it: it.manifest("tag"),
        lambda it: it.tags(),
        lambda it: it.has(blob_of(b"")),
        lambda it: transfer_of(cache).push(artifact_of(cache, b"layer"), it, "more"),
        lambda it: list(it.sweep(set(), dry_run=False)),
    ):
        with pytest.raises(error, match=words):
            ask(repository_of(f"oci:{tmp_path}/layout"))


def test_an_entry_that_names_what_is_not_there_is_no_manifest(tmp_path: Path, cache: Cache) -> None:
    repository = repository_of(f"oci:{tmp_path}/layout")
    manifest = artifact_of(cache, b"layer")
    transfer_of(cache).push(manifest, repository, "tag")
    (tmp_path / "layout" / "blobs" / "sha256" / manifest.digest.hex).unlink()
    assert repository.manifest("tag") is None
    transfer_of(cache).push(manifest, repository, "tag")
    assert repository.manifest("tag") == manifest


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_corrupt_blob_is_found_and_a_push_mends_it(tmp_path: Path, damage: str) -> None:
    with opened(tmp_path / "one") as one, opened(tmp_path / "two") as two:
        manifest = artifact_of(one, b"layer" * 1000)
        repository = repository_of(f"oci:{tmp_path}/layout")
        transfer_of(one).push(manifest, repository, "tag")
        for digest in (manifest.layers[0].digest, manifest.digest):
            path = tmp_path / "layout" / "blobs" / "sha256" / digest.hex
            if damage == "flip":
                flip(path)
            else:
                os.truncate(path, 10 if damage == "truncate" else 0)
            with pytest.raises(RegistryCorrupt, match="corrupt"):
                transfer_of(two).pull(manifest.digest, repository)
            transfer_of(one).push(manifest, repository, "tag")
        assert transfer_of(two).pull(manifest.digest, repository) == manifest


def test_a_folder_that_cannot_be_used_is_as_a_registry_that_cannot_be_reached(
    tmp_path: Path, cache: Cache
) -> None:
    (tmp_path / "file").write_text("")
    for name in (f"oci:{tmp_path}/file", f"oci:{tmp_path}/file/below"):
        repository = repository_of(name)
        assert repository.tags() == []
        for ask in (
            lambda it: it.manifest(Digest.of(b"")),
            lambda it: it.has(blob_of(b"")),
            lambda it: upload(it, cache, b"data"),
            lambda it: it.put_manifest(Manifest.of_manifests([])),
            lambda it: it.delete_manifest(Digest.of(b"")),
        ):
            with pytest.raises(RegistryUnreachable, match="Cannot use"):
                ask(repository)


@as_root
def test_a_folder_that_is_full_or_cannot_be_written_is_still_read(
    tmp_path: Path, cache: Cache
) -> None:
    with mounted(tmp_path / "mount", "size=300k") as folder:
        repository = repository_of(f"oci:{folder}/layout")
        manifest = artifact_of(cache, b"layer")
        transfer_of(cache).push(manifest, repository, "tag")
        with pytest.raises(RegistryError, match="No space left"):
            transfer_of(cache).push(artifact_of(cache, os.urandom(500_000)), repository, "large")
        assert repository.tags() == ["tag"]
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        again = repository_of(f"oci:{folder}/layout")
        assert (
            again.manifest("tag") == manifest
            and download(again, cache, manifest.layers[0]) == b"layer"
        )
        with pytest.raises(RegistryError, match="Read-only"):
            transfer_of(cache).push(artifact_of(cache, b"more"), again, "more")
        assert isinstance(again, LayoutRepository)
        with pytest.raises(RegistryUnreachable, match=f"Cannot use oci:{folder}/layout") as raised:
            list(again.sweep(set(), dry_run=False))
        assert "FLYTE_HOME" not in str(raised.value)


def test_a_sweep_keeps_what_tags_lead_to(tmp_path: Path, cache: Cache) -> None:
    repository = repository_of(f"oci:{tmp_path}/layout")
    assert isinstance(repository, LayoutRepository)
    artifact, other = artifact_of(cache, b"layer"), artifact_of(cache, b"other")
    for each in (artifact, other):
        transfer_of(cache).push(each, repository)
    repository.put_manifest(Manifest.of_manifests([artifact.descriptor]), "index")
    assert {digest for digest, _ in repository.sweep(set(), dry_run=False)} == {
        other.digest,
        Digest.of(b"other"),
    }
    assert transfer_of(cache).pull(artifact.digest, repository) == artifact
    with pytest.raises(BlobMissing):
        download(repository, cache, blob_of(b"other"))


# Other tools.


def skopeo(*arguments: str) -> bytes:
    need("skopeo")
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *arguments], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


INSECURE = ("--src-tls-verify=false", "--dest-tls-verify=false")


def published(
    cache: Cache, project: Path, place: str
) -> tuple[dict[str, Manifest], dict[bytes, bytes]]:
    """Push a bundle, its record, an artifact and an index; return them by tag, and the files.

    The artifact has the empty config.
    """
    files = {b"a.py": b"print(1)\n", b"lib/b.txt": os.urandom(100_000)}
    write_files(project, files)
    made = make_bundle(cache, project)
    record = cache.records.last("bundle:project")
    assert record is not None
    bundle = Manifest.parse(cache.blobs.read(made.manifest))
    artifact = artifact_of(cache, b"text", **{"org.opencontainers.image.title": "file.txt"})
    index = record_index(record, bundle.descriptor, "project")
    named = [
        replace(bundle.descriptor, annotations={"dev.test.tree": str(made.tree)}),
        artifact.descriptor,
    ]
    both = Manifest.of_manifests(
        named, artifact_type="application/vnd.test.index", annotations={"dev.test": "both"}
    )
    repository = repository_of(place)
    for tag, manifest in (
        found := {
            "bundle": bundle,
            "artifact": artifact,
            record_tag(record.key): index,
            "both": both,
        }
    ).items():
        transfer_of(cache).push(manifest, repository, tag)
    return found, files


@pytest.fixture(params=["registry", "folder"])
def place(request: pytest.FixtureRequest, registry: Server, tmp_path: Path) -> str:
    return (
        registry.repository(uuid.uuid4().hex)
        if request.param == "registry"
        else f"oci:{tmp_path}/layout"
    )


def address(place: str, tag: str) -> str:
    return f"{place}:{tag}" if place.startswith("oci:") else f"docker://{place}:{tag}"


def test_skopeo_reads_what_was_pushed(cache: Cache, tmp_path: Path, place: str) -> None:
    found, _ = published(cache, tmp_path / "project", place)
    for tag, manifest in found.items():
        options = () if place.startswith("oci:") else ("--tls-verify=false",)
        assert skopeo("inspect", *options, "--raw", address(place, tag)) == manifest.data
        target = tmp_path / tag
        skopeo(
            "copy", *INSECURE, "--all", "--preserve-digests", address(place, tag), f"dir:{target}"
        )
        assert (target / "manifest.json").read_bytes() == manifest.data
        for blob in manifest.blobs():
            assert Digest.of((target / blob.digest.hex).read_bytes()) == blob.digest


def test_what_skopeo_copied_is_used_from_there(
    cache: Cache, tmp_path: Path, place: str, registry: Server
) -> None:
    """Artifacts that skopeo copied are found by tag and digest, with all that an index names.

    They are copied to another repository, to a directory and back.
    """
    found, _ = published(cache, tmp_path / "project", place)
    for target in (registry.repository(uuid.uuid4().hex), f"oci:{tmp_path}/copied"):
        for tag, manifest in found.items():
            skopeo(
                "copy",
                *INSECURE,
                "--all",
                "--preserve-digests",
                address(place, tag),
                address(target, tag),
            )
            repository = repository_of(target)
            assert (
                repository.manifest(tag) == manifest
                and repository.manifest(manifest.digest) == manifest
            )
            with opened(tmp_path / uuid.uuid4().hex) as other:
                for each in manifest.manifests if manifest.is_index else [manifest.descriptor]:
                    pulled = transfer_of(other).pull(each.digest, repository)
                    assert all(other.blobs.verify(blob.digest) for blob in pulled.blobs())
            if tag.startswith("record"):
                assert PublishedRecord.parse(manifest).artifact == found["bundle"].descriptor
        assert set(found) <= set(repository_of(target).tags())


def test_the_oras_client_reads_an_artifact(cache: Cache, tmp_path: Path, registry: Server) -> None:
    """The oras client reads an artifact by its conventions: a layer's title is its file name."""
    import oras.client

    place = registry.repository(uuid.uuid4().hex)
    data = b"content" * 1000
    cache.blobs.put(data)
    plain = artifact_of(cache, data)
    titled: dict[str, Any] = json.loads(plain.data)
    titled["layers"][0]["annotations"] = {"org.opencontainers.image.title": "sub.txt"}
    manifest = Manifest.parse(json.dumps(titled).encode())
    transfer_of(cache).push(manifest, repository_of(place), "tag")
    client = oras.client.OrasClient(insecure=True)
    found = client.get_manifest(f"{place}:tag")
    assert (
        found["artifactType"] == "application/vnd.test.v1"
        and found["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    )
    assert client.pull(target=f"{place}:tag", outdir=str(tmp_path / "out")) == [
        str(tmp_path / "out" / "sub.txt")
    ]
    assert (tmp_path / "out" / "sub.txt").read_bytes() == data
    assert client.get_tags(place) == ["tag"]


def test_what_the_oras_client_pushed_is_read(
    cache: Cache, tmp_path: Path, registry: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import oras.client

    place = registry.repository(uuid.uuid4().hex)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("of oras")
    oras.client.OrasClient(insecure=True).push(target=f"{place}:tag", files=["file.txt"])
    found = repository_of(place).manifest("tag")
    assert (
        found is not None
        and found.layers[0].annotations["org.opencontainers.image.title"] == "file.txt"
    )
    transfer_of(cache).pull(found.digest, repository_of(place))
    assert cache.blobs.read(found.layers[0].digest) == b"of oras"
