"""The shared cache: artifacts that one machine has built are not built again by another.

Each machine has its own home directory.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyte_build.bundler import bundle
from flyte_build.bundler.tree import Tree
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.layer import Layer
from flyte_build.cas.records import Record
from flyte_build.cas.registry import open_repository
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.published_record import record_index
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.retry_budget import RetryBudget
from flyte_build.cas.registry.tags import record_tag
from tests.support.caches import layer, opened
from tests.support.command import Shell
from tests.support.faults import FaultProxy
from tests.support.files import archive, flip
from tests.support.registries import Server, serve

OTHER = (
    "import flyte\nenv = flyte.TaskEnvironment(name='more')\n@env.task\ndef one() -> int:\n   "
    " return 1\n"
)
NOBODY = "127.0.0.1:9/nobody/here"  # The port "discard" of RFC 863, on which nothing listens.


@pytest.fixture(params=["folder", "registry"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty repository of each kind."""
    if request.param == "folder":
        return f"oci:{tmp_path}/shared"
    name: str = request.getfixturevalue("repository")
    return name


@pytest.fixture
def other(flyte: Shell, tmp_path: Path) -> Iterator[Shell]:
    """Another machine with the same project."""
    yield Shell(flyte.project, tmp_path / "other home")
    for folder, _, _ in os.walk(tmp_path / "other home"):
        os.chmod(folder, 0o700)


def at(place: str) -> Repository:
    """Open the repository of that name."""
    return open_repository(RepositoryName.parse(place), Counters(), RetryBudget())


def records(place: str) -> list[str]:
    """Return the tags of the records in a repository."""
    return [tag for tag in at(place).tags() if tag.startswith("record.")]


def bundle_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the bundle among the nodes of a run, of `cache why` or of `cache warm`."""
    nodes: list[dict[str, Any]] = document.get("prepared") or document["nodes"]
    return next(node for node in nodes if node["kind"] == "bundle")


def test_a_fresh_machine_downloads_and_prepares_nothing_else(
    flyte: Shell, other: Shell, place: str
) -> None:
    """A fresh machine fetches the bundle and builds no layer.

    `cache why` reports that before, with the place; afterwards the bundle is local.
    """
    made = flyte.json("run", "--registry", place, "tasks.py", "hello")
    assert bundle_of(made)["from"] == "made" and made["counters"]["layers_made"] > 0
    foretold = bundle_of(other.json("cache", "why", "--registry", place, "tasks.py"))
    assert (foretold["state"], foretold["from"], foretold["key"]) == (
        "cached",
        place,
        bundle_of(made)["key"],
    )
    for command in (["cache", "why"], ["graph"]):
        assert f"in {place}" in other(*command, "--registry", place, "tasks.py").stdout
    assert other.json("cache", "stats")["blobs"] == 0
    found = other.json("run", "--registry", place, "tasks.py", "hello")
    assert (
        found["outputs"] == made["outputs"]
        and found["counters"]["layers_made"] == 0
        and found["counters"]["bytes_sent"] == 0
    )
    assert (bundle_of(found)["state"], bundle_of(found)["from"]) == ("cached", place)
    assert bundle_of(found)["digest"] == bundle_of(made)["digest"]
    again = other.json("run", "--registry", place, "tasks.py", "hello")
    assert bundle_of(again)["from"] == "local" and again["counters"]["requests"] == 0


def test_with_everything_local_no_request_is_made(
    flyte: Shell, registry: Server, repository: str
) -> None:
    """With everything local, no request is made."""
    with FaultProxy(registry.url) as proxy:
        place = proxy.repository(repository.partition("/")[2])
        flyte("run", "--registry", place, "tasks.py", "hello")
        count = len(proxy.requests)
        result = flyte.json("run", "--registry", place, "tasks.py", "hello")
        assert len(proxy.requests) == count > 0 and result["counters"]["requests"] == 0


def test_the_registry_of_the_environment_and_of_files(
    flyte: Shell, other: Shell, place: str
) -> None:
    """Repositories come from `FLYTE_REGISTRY`, `registry`, `cache.read` and `cache.write`.

    The last two replace `registry`.
    """
    flyte("run", "tasks.py", "hello", env={"FLYTE_REGISTRY": place})
    assert len(records(place)) == 1
    (other.project / "flyte.toml").write_text(f'registry = "{place}"\n')
    assert bundle_of(other.json("cache", "why", "tasks.py"))["from"] == place
    (other.project / "flyte.toml").write_text(
        f'registry = "{NOBODY}"\ncache.read = ["{place}"]\ncache.write = ""\n'
    )
    result = other("run", "tasks.py", "hello")
    assert f"fetched   bundle from {place}" in result.stderr and "nobody" not in result.stderr
    assert other.json("config", "get", "cache.read")["value"] == [place]
    assert (
        bundle_of(
            other.json(
                "cache", "why", "tasks.py", env={"FLYTE_CACHE_READ": "", "FLYTE_REGISTRY": ""}
            )
        )["from"]
        == "local"
    )


@pytest.mark.parametrize(
    "text",
    [
        "nobody",
        "https://",
        "user:pa55word@host.example/x",
        "host.example/UPPER",
        "oci:",
        "ftp://host.example/x",
    ],
)
def test_what_is_no_repository_is_refused(flyte: Shell, text: str) -> None:
    """A string that is not a repository is refused with exit code 2, and no password is shown."""
    for arguments, variable in (([f"--registry={text}"], {}), ([], {"FLYTE_REGISTRY": text})):
        done = flyte("run", *arguments, "tasks.py", "hello", exit_code=2, env=variable)
        assert "pa55word" not in done.stderr + done.stdout and "error:" in done.stderr


def test_sources_are_asked_in_order_and_only_one_is_written_to(
    flyte: Shell, other: Shell, place: str, tmp_path: Path
) -> None:
    """Repositories are read in order, and only one is written.

    A pull request reads what main has published, and writes new artifacts to its own repository
    alone.
    """
    own = f"oci:{tmp_path}/own"
    flyte("run", "--registry", place, "tasks.py", "hello")
    before = sorted(at(place).tags())
    reading = ("--cache-read", own, "--cache-read", place, "--cache-write", own)
    assert bundle_of(other.json("run", *reading, "tasks.py", "hello"))["from"] == place
    assert at(own).tags() == []
    with open(other.project / "tasks.py", "a") as file:
        file.write("\n# edited\n")
    assert bundle_of(other.json("run", *reading, "tasks.py", "hello"))["from"] == "made"
    assert sorted(at(place).tags()) == before and len(records(own)) == 1
    assert bundle_of(flyte.json("run", *reading, "tasks.py", "hello"))["from"] == own


@pytest.mark.slow
def test_an_edit_in_a_large_tree_sends_little(flyte: Shell, other: Shell, repository: str) -> None:
    """An edit of one file of 10,000 sends at most 2 MiB in 12 requests.

    That also holds for a machine that had fetched the rest.
    """
    for number in range(10_000):
        path = flyte.project / f"p{number % 97}" / f"m{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"# %d\n" % number + os.urandom(1200).hex().encode())
    arguments = ("run", "--copy-style", "all", "--registry", repository, "tasks.py", "hello")
    first = flyte.json(*arguments)
    assert first["counters"]["bytes_sent"] > 10 << 20
    for number, machine in enumerate((flyte, other)):
        fetched = other.json(*arguments)["counters"]
        assert fetched["layers_made"] == 0 and fetched["bytes_sent"] == 0
        (flyte.project / "p5" / "m5.py").write_text(f"# edited {number}")
        counters = machine.json(*arguments)["counters"]
        assert counters["requests"] <= 12 and 0 < counters["bytes_sent"] <= 2 << 20, counters
        assert counters["layers_made"] == 2  # One pack, and the tree's own document.


def test_nothing_is_published_by_a_local_run(flyte: Shell, place: str) -> None:
    """A local run publishes nothing, since it prepares nothing."""
    flyte("run", "--local", "--registry", place, "tasks.py", "hello")
    assert at(place).tags() == []


def test_what_was_prepared_before_there_was_a_registry_is_published(
    flyte: Shell, place: str
) -> None:
    """Artifacts from before a registry was configured are published by the first run with one."""
    flyte("run", "tasks.py", "hello")
    result = flyte("run", "--registry", place, "tasks.py", "hello")
    assert f"published 1 to {place}" in result.stderr and len(records(place)) == 1
    assert "published" not in flyte("run", "--registry", place, "tasks.py", "hello").stderr


def test_what_a_failed_task_needed_is_published(flyte: Shell, place: str) -> None:
    """Artifacts of a failed task are published before the command ends."""
    flyte("run", "--registry", place, "tasks.py", "fails", exit_code=1)
    assert len(records(place)) == 1


@pytest.mark.slow
def test_a_registry_that_is_down_is_said_once_and_published_to_later(
    flyte: Shell, registry: Server, repository: str
) -> None:
    """A registry that is down is reported once, left alone for minutes, and published to later.

    The run goes on, and gc keeps the artifacts until they are published.
    """
    with FaultProxy(registry.url) as proxy:
        place = proxy.repository(repository.partition("/")[2])
        with proxy.down():
            done = flyte("run", "--registry", place, "tasks.py", "hello")
            assert done.stdout == "Hello, World!\n" and done.stderr.count(place) == 1, done.stderr
            assert "a later command publishes" in done.stderr
            for name in ("hello", "child"):
                again = flyte(
                    "-of",
                    "json",
                    "run",
                    "--registry",
                    place,
                    "tasks.py",
                    name,
                    *(["--name", "x"] if name == "child" else []),
                )
                assert (
                    place not in again.stderr
                    and json.loads(again.stdout)["counters"]["requests"] == 0
                )
            wait_is_over(flyte)
            # It was said when it began.
            assert place not in flyte("run", "--registry", place, "tasks.py", "hello").stderr
            assert (
                "cannot be reached"
                in flyte("cache", "push", "--registry", place, "tasks.py", exit_code=3).stderr
            )
        flyte("cache", "gc", "--keep", "0s")
        with open(flyte.project / "tasks.py", "a") as file:
            file.write("\n# edited\n")
        assert "published" not in flyte("run", "--registry", place, "tasks.py", "hello").stderr
        wait_is_over(flyte)
        assert (
            f"published 2 to {place}"
            in flyte("run", "--registry", place, "tasks.py", "hello").stderr
        )
        assert len(records(place)) == 2


def wait_is_over(machine: Shell) -> None:
    """Let the minutes pass for which a machine leaves a registry alone."""
    with opened(machine.home / "cache") as cache:
        cache.database.execute("UPDATE absences SET since=since-400, until=until-400")


def test_a_run_that_needs_nothing_of_a_registry_that_is_down(
    flyte: Shell, registry: Server, repository: str
) -> None:
    """If all is local and published, a registry that is down is neither asked nor reported."""
    with FaultProxy(registry.url) as proxy:
        place = proxy.repository(repository.partition("/")[2])
        flyte("run", "--registry", place, "tasks.py", "hello")
        with proxy.down():
            assert place not in flyte("run", "--registry", place, "tasks.py", "hello").stderr


def test_a_run_that_is_killed_while_it_publishes(
    flyte: Shell, registry: Server, repository: str
) -> None:
    """After a run that was killed while publishing, the next run publishes the rest."""
    with FaultProxy(registry.url) as proxy:
        place = proxy.repository(repository.partition("/")[2])
        proxy.on("PUT", r"/manifests/").stalls(600)
        started = flyte.start("run", "--registry", place, "tasks.py", "hello")
        while not proxy.seen("PUT", "/manifests/"):
            time.sleep(0.05)
        started.kill()
        started.communicate()
        assert at(repository).tags() == []
        assert "published 1" in flyte("run", "--registry", place, "tasks.py", "hello").stderr
        assert len(records(repository)) == 1


def test_the_result_does_not_wait_for_publishing(
    flyte: Shell, registry: Server, repository: str
) -> None:
    """The result is printed before publishing, and an interrupt then loses nothing."""
    with FaultProxy(registry.url) as proxy:
        place = proxy.repository(repository.partition("/")[2])
        proxy.on("PUT", r"/manifests/").stalls(600)
        started = flyte.start("run", "--registry", place, "tasks.py", "hello")
        assert started.stdout is not None and started.stdout.readline() == "Hello, World!\n"
        while not proxy.seen("PUT", "/manifests/"):
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        assert started.wait(30) == 130
        started.communicate()
        assert "published 1" in flyte("run", "--registry", place, "tasks.py", "hello").stderr


def test_a_bad_blob_is_not_published(flyte: Shell, place: str) -> None:
    """A bad blob is reported and not published; the next run rebuilds and publishes it."""
    held = bundle_of(flyte.json("run", "tasks.py", "hello"))
    blobs = flyte.home / "cache" / "v1" / "blobs" / "sha256"
    manifest = json.loads((blobs / held["digest"].removeprefix("sha256:")).read_bytes())
    flip(blobs / manifest["layers"][1]["digest"].removeprefix("sha256:"))
    done = flyte("run", "--registry", place, "tasks.py", "hello")
    assert (
        "was not published" in done.stderr
        and done.stdout == "Hello, World!\n"
        and at(place).tags() == []
    )
    assert "published 1" in flyte("run", "--registry", place, "tasks.py", "hello").stderr
    fresh = Shell(flyte.project, flyte.home.parent / "fresh")
    assert bundle_of(fresh.json("run", "--registry", place, "tasks.py", "hello"))["from"] == place


def test_what_a_deployment_needed_is_shared_too(flyte: Shell, other: Shell, place: str) -> None:
    """A deployment shares its artifacts, and a dry run publishes nothing.

    A run of the same code on another machine builds nothing.
    """
    flyte("deploy", "--dry-run", "--registry", place, "tasks.py")
    assert at(place).tags() == []
    flyte("deploy", "--registry", place, "tasks.py")
    assert bundle_of(other.json("run", "--registry", place, "tasks.py", "hello"))["from"] == place


def test_a_bundle_of_a_deployment_and_a_record_stays_until_both_are_gone(
    flyte: Shell, other: Shell, place: str
) -> None:
    """A bundle of a deployment and a record stays until both are gone.

    Deleting the deployment leaves what runs find, and collecting leaves what is deployed.
    """
    flyte("deploy", "--version", "v1", "--registry", place, "tasks.py")
    (record,) = records(place)
    index = at(place).manifest(record)
    assert index is not None
    kept = f"keep.{index.manifests[0].digest.hex}"
    flyte("cache", "rm", "--remote", "--registry", place, record.removeprefix("record."))
    assert kept in at(place).tags() and records(place) == []
    assert (
        other("run", "--registry", place, "deployed-task", "t.hello:v1").stdout == "Hello, World!\n"
    )
    flyte("cache", "warm", "--registry", place, "tasks.py")
    flyte("delete", "deployment", "--registry", place, "t:v1")
    assert sorted(at(place).tags()) == sorted([kept, record])


def test_from_python(flyte: Shell, other: Shell, place: str) -> None:
    """`flyte.run` publishes and fetches as the command does."""
    text = "\n".join(
        ["import tasks, flyte", "flyte.init_from_config()", "print(flyte.run(tasks.hello))"]
    )
    for machine in (flyte, other):
        done = subprocess.run(
            [sys.executable, "-c", text],
            cwd=flyte.project,
            env={**machine.environment, "FLYTE_REGISTRY": place},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "Hello, World!\n", done.stderr
    assert (
        len(records(place)) == 1
        and bundle_of(other.json("cache", "why", "tasks.py"))["state"] == "cached"
    )


@pytest.mark.slow
def test_many_at_once(flyte: Shell, place: str, tmp_path: Path) -> None:
    """Machines that build and publish one bundle at once all succeed, and its record is intact."""
    machines = [Shell(flyte.project, tmp_path / f"home{number}") for number in range(4)]
    started = [
        machine.start("run", "--registry", place, "tasks.py", "hello")
        for machine in (*machines, *machines)
    ]
    for each in started:
        out, errors = each.communicate(timeout=100)
        assert (each.returncode, out) == (0, "Hello, World!\n"), errors
    assert len(records(place)) == 1
    fresh = Shell(flyte.project, tmp_path / "fresh")
    assert bundle_of(fresh.json("run", "--registry", place, "tasks.py", "hello"))["from"] == place


@pytest.mark.slow
def test_a_record_in_use_is_published_again_weekly(flyte: Shell, place: str) -> None:
    """A record in use is published again after a week, so that it is not collected."""
    flyte("run", "--registry", place, "tasks.py", "hello")
    (tag,) = records(place)
    before = at(place).manifest(tag)
    for days, is_renewed in ((6, False), (8, True)):
        with opened(flyte.home / "cache") as cache:
            cache.database.execute(
                "UPDATE publications SET published=?", (int(time.time()) - days * 86400,)
            )
        time.sleep(1.1)  # Times in records are whole seconds.
        flyte("run", "--registry", place, "tasks.py", "hello")
        assert (at(place).manifest(tag) != before) == is_renewed
    assert records(place) == [tag]


def published_bundle(machine: Shell, place: str) -> tuple[Key, Manifest]:
    """Run on a machine, and return the key and the published index of its only bundle."""
    key = Key(bundle_of(machine.json("run", "--registry", place, "tasks.py", "hello"))["key"])
    index = at(place).manifest(record_tag(key))
    assert index is not None
    return key, index


def repacked(cache: Cache, key: Key, files: dict[str | bytes, bytes]) -> bundle.Bundle:
    """Return a copy of the recorded bundle with a single pack, which holds these files."""
    record = cache.records.find(key)
    assert record is not None
    tree = bundle.read_tree(bundle.read(record.artifact, cache.blobs), cache.blobs)
    pack: Layer = layer(cache, archive(files))
    with cache.blobs.batch() as batch:
        return bundle.write(tree, [pack], batch)


def publish(cache: Cache, place: str, key: Key, made: bundle.Bundle) -> None:
    """Put a bundle and its record into a repository, whatever is there."""
    repository, manifest = at(place), Manifest.parse(cache.blobs.read(made.manifest))
    for blob in manifest.blobs():
        digest = blob.digest
        repository.upload(blob, lambda digest=digest: cache.blobs.open(digest), lambda count: None)  # type: ignore[misc]  # mypy cannot infer it.
    repository.put_manifest(manifest)
    recorded = cache.records.find(key)
    assert recorded is not None
    record = Record(key, "bundle", made.manifest, (), recorded.inputs)
    repository.put_manifest(record_index(record, manifest.descriptor, "default"), record_tag(key))


def test_two_machines_publish_one_key_with_different_bytes(
    flyte: Shell, other: Shell, registry: Server, repository: str
) -> None:
    """If two machines publish one key with different bytes, both use those in the repository.

    The tag is read again for that, and the mismatch is reported.
    """
    key, _ = published_bundle(flyte, repository)
    with opened(flyte.home / "cache") as cache, FaultProxy(registry.url) as proxy:
        place = proxy.repository(repository.partition("/")[2])
        theirs = repacked(cache, key, {"tasks.py": (flyte.project / "tasks.py").read_bytes()})
        at(repository).delete_manifest(Digest(published_bundle(flyte, repository)[1].digest))
        # It looks for it, and publishes; then ours is in its place.
        proxy.on("GET", rf"/manifests/{record_tag(key)}").passes()
        proxy.on("GET", rf"/manifests/{record_tag(key)}").calls(
            lambda: publish(cache, repository, key, theirs)
        )
        done = other("run", "--registry", place, "tasks.py", "hello")
        assert (
            "from another machine" in done.stderr
            and theirs.manifest.short in done.stderr
            and done.stdout == "Hello, World!\n"
        )
        found = bundle_of(other.json("run", "--registry", place, "tasks.py", "hello"))
        assert (found["digest"], found["from"]) == (theirs.manifest, place)


def test_a_bundle_of_another_tree_is_not_used(flyte: Shell, other: Shell, place: str) -> None:
    """A record that leads to another tree's bundle is reported, and the bundle is built instead."""
    key, _ = published_bundle(flyte, place)
    with opened(flyte.home / "cache") as cache:
        record = cache.records.find(key)
        assert record is not None
        with cache.blobs.batch() as batch:
            wrong = bundle.write(Tree([]), [], batch)
        publish(cache, place, key, wrong)
    done = other("run", "--registry", place, "tasks.py", "hello")
    assert (
        done.stdout == "Hello, World!\n"
        and "the bundle of another tree" in done.stderr
        and "made      bundle" in done.stderr
    )


def test_a_bundle_that_does_not_hold_what_its_tree_says(
    flyte: Shell, other: Shell, place: str
) -> None:
    """A bundle that does not match its tree is never run, but rebuilt.

    The mismatch is noticed during the extraction.
    """
    key, _ = published_bundle(flyte, place)
    with opened(flyte.home / "cache") as cache:
        publish(cache, place, key, repacked(cache, key, {"tasks.py": b"raise SystemExit('evil')"}))
    done = other("run", "--registry", place, "tasks.py", "hello")
    assert (
        done.stdout == "Hello, World!\n"
        and f"The content of {place} for {key.short} is ignored" in done.stderr
    )
    assert "evil" not in done.stderr


@pytest.mark.slow
def test_a_tag_of_a_record_that_was_moved_by_hand(flyte: Shell, other: Shell, place: str) -> None:
    """A tag moved to a non-record, or to the record of another key, is reported and overwritten."""
    key, index = published_bundle(flyte, place)
    (flyte.project / "more.py").write_text(OTHER)
    flyte("run", "--registry", place, "more.py", "one")
    another = next(
        manifest
        for tag in records(place)
        if tag != record_tag(key) and (manifest := at(place).manifest(tag))
    )
    for wrong in (another, Manifest.of_manifests(index.manifests)):
        at(place).put_manifest(wrong, record_tag(key))
        done = other("run", "--registry", place, "tasks.py", "hello")
        assert (
            done.stdout == "Hello, World!\n"
            and "ignored" in done.stderr
            and f"published 1 to {place}" in done.stderr
        )
        shutil.rmtree(other.home)
        assert (
            bundle_of(other.json("run", "--registry", place, "tasks.py", "hello"))["from"] == place
        )
        shutil.rmtree(other.home)


def test_a_record_without_its_artifact_is_a_miss(flyte: Shell, other: Shell, place: str) -> None:
    """A record whose artifact the registry has collected is a cache miss, and is replaced."""
    _, index = published_bundle(flyte, place)
    at(place).delete_manifest(index.manifests[0].digest)
    done = other("run", "--registry", place, "tasks.py", "hello")
    assert (
        done.stdout == "Hello, World!\n"
        and "made      bundle" in done.stderr
        and f"published 1 to {place}" in done.stderr
    )
    shutil.rmtree(flyte.home)
    assert bundle_of(flyte.json("run", "--registry", place, "tasks.py", "hello"))["from"] == place


def test_blobs_that_are_gone_are_fetched_again(flyte: Shell, place: str) -> None:
    """A run fetches bad or missing blobs again, and `cache verify --repair` does so for all."""
    held = bundle_of(flyte.json("run", "--registry", place, "tasks.py", "hello"))
    blobs = flyte.home / "cache" / "v1" / "blobs" / "sha256"
    (blobs / held["digest"].removeprefix("sha256:")).unlink()
    assert bundle_of(flyte.json("run", "--registry", place, "tasks.py", "hello"))["from"] == place
    manifest = json.loads((blobs / held["digest"].removeprefix("sha256:")).read_bytes())
    pack = blobs / manifest["layers"][1]["digest"].removeprefix("sha256:")
    pack.chmod(0o600)
    pack.write_bytes(b"damaged")
    found = flyte.json("cache", "verify", "--repair", "--registry", place)
    assert [bad["digest"] for bad in found["bad"]] == [manifest["layers"][1]["digest"]]
    assert f"fetched again from {place}" in found["bad"][0]["what"] and found["bad"][0]["repaired"]
    assert flyte.json("cache", "verify")["bad"] == []
    again = flyte.json("run", "tasks.py", "hello")
    assert bundle_of(again)["from"] == "local" and again["counters"]["layers_made"] == 0


@pytest.mark.slow
def test_pull_and_push(flyte: Shell, other: Shell, place: str) -> None:
    """`cache pull` and `cache push` move the artifacts of a file, or all, without building any.

    They fail if one is missing.
    """
    missing = flyte.json("cache", "push", "--registry", place, "tasks.py", exit_code=3)["items"]
    assert [item["state"] for item in missing] == ["missing"] and at(place).tags() == []
    flyte("run", "tasks.py", "hello")
    assert [
        item["state"]
        for item in flyte.json("cache", "push", "--registry", place, "tasks.py")["items"]
    ] == ["published"]
    assert [
        item["state"] for item in flyte.json("cache", "push", "--registry", place)["items"]
    ] == ["there"]
    pulled = other.json("cache", "pull", "--registry", place)
    assert [(item["state"], item["place"]) for item in pulled["items"]] == [("fetched", place)]
    assert [
        item["state"]
        for item in other.json("cache", "pull", "--registry", place, "tasks.py")["items"]
    ] == ["here"]
    result = other.json("run", "tasks.py", "hello")
    assert result["counters"]["layers_made"] == 0 and bundle_of(result)["from"] == "local"
    shutil.rmtree(other.home)
    assert [
        item["state"]
        for item in other.json("cache", "pull", "--registry", place, "tasks.py")["items"]
    ] == ["fetched"]
    with open(flyte.project / "tasks.py", "a") as file:
        file.write("\n# edited\n")
    assert [
        item["state"]
        for item in other.json("cache", "pull", "--registry", place, "tasks.py", exit_code=3)[
            "items"
        ]
    ] == ["missing"]


def test_without_a_registry_the_store_here_is_one(flyte: Shell) -> None:
    """Without a registry, every command works with the local store alone, and reports that."""
    assert [
        item["state"] for item in flyte.json("cache", "pull", "tasks.py", exit_code=3)["items"]
    ] == ["missing"]
    flyte("cache", "warm", "tasks.py")
    assert [item["state"] for item in flyte.json("cache", "pull", "tasks.py")["items"]] == ["here"]
    assert [item["state"] for item in flyte.json("cache", "push", "tasks.py")["items"]] == ["there"]
    assert [item["state"] for item in flyte.json("cache", "push")["items"]] == [
        "there"
    ] and flyte.json("cache", "pull")["items"] == []
    assert "No registry is configured" in flyte("cache", "push").stderr
    assert flyte.json("cache", "gc", "--remote")["removed"] == []


def test_the_registrys_own_collection_takes_nothing_that_is_in_use(
    flyte: Shell, other: Shell, tmp_path: Path
) -> None:
    """A registry's own garbage collection removes nothing that is in use.

    It removes untagged manifests, even if an index names them; whatever a record names has a tag
    until the record goes.
    """
    with serve(tmp_path / "registry") as server:
        place = server.repository("x/y")
        flyte("run", "--registry", place, "tasks.py", "hello")
    garbage_collect(server, tmp_path)
    with serve(tmp_path / "registry") as server:
        place = server.repository("x/y")
        assert (
            bundle_of(other.json("run", "--registry", place, "tasks.py", "hello"))["from"] == place
        )
        age(flyte, place, 20)
        flyte("cache", "gc", "--remote", "--registry", place)
        assert at(place).tags() == []
    garbage_collect(server, tmp_path)
    with serve(tmp_path / "registry") as server:
        assert list((server.folder).rglob("data")) == []


def garbage_collect(server: Server, folder: Path) -> None:
    """Collect the storage of a registry that has ended."""
    config = folder / "collect.yml"
    storage = f"{{filesystem: {{rootdirectory: {server.folder}}}, delete: {{enabled: true}}}}"
    config.write_text(f"version: 0.1\nstorage: {storage}\nhttp: {{addr: 127.0.0.1:0}}\n")
    command = ["docker-registry", "garbage-collect", "--delete-untagged", str(config)]
    subprocess.run(command, check=True, capture_output=True)


def test_what_a_registry_has_collected_is_published_again(
    flyte: Shell, other: Shell, place: str
) -> None:
    """A record whose artifact the registry has collected counts for nothing.

    A check fails, `cache why` reports a miss, and the artifact is published again.
    """
    key, index = published_bundle(flyte, place)
    at(place).delete_manifest(index.manifests[0].digest)
    assert (
        "not published"
        in flyte("cache", "warm", "--check", "--registry", place, "tasks.py", exit_code=3).stdout
    )
    assert (
        bundle_of(other.json("cache", "why", "--registry", place, "tasks.py"))["state"] == "missing"
    )
    assert [
        item["state"]
        for item in flyte.json("cache", "push", "--registry", place, "tasks.py")["items"]
    ] == ["published"]
    assert bundle_of(other.json("cache", "why", "--registry", place, "tasks.py"))["key"] == key
    flyte("cache", "warm", "--check", "--registry", place, "tasks.py")


def test_a_bundle_of_two_records_stays_until_both_are_gone(flyte: Shell, place: str) -> None:
    """A bundle of two records stays until both are deleted."""
    key, index = published_bundle(flyte, place)
    twin = Key(Digest.of(b"another key of the same artifact"))
    record = Record(twin, "bundle", index.manifests[0].digest, (), {"tree": "x"})
    at(place).put_manifest(record_index(record, index.manifests[0], "default"), record_tag(twin))
    kept = f"keep.{index.manifests[0].digest.hex}"
    flyte("cache", "rm", "--remote", "--registry", place, key.hex[:12])
    assert sorted(at(place).tags()) == sorted([kept, record_tag(twin)])
    flyte("cache", "rm", "--remote", "--registry", place, twin)
    assert at(place).tags() == []


def test_a_key_is_forgotten(flyte: Shell, place: str) -> None:
    """`cache rm` forgets a key here, and in the repository on request; then it is rebuilt.

    An unknown key is exit code 4.
    """
    key = bundle_of(flyte.json("run", "--registry", place, "tasks.py", "hello"))["key"]
    assert flyte.json("cache", "rm", key[:20])["removed"] == {"local": True, "remote": False}
    assert bundle_of(flyte.json("run", "--registry", place, "tasks.py", "hello"))["from"] == place
    assert flyte.json("cache", "rm", "--remote", "--registry", place, key)["removed"] == {
        "local": True,
        "remote": True,
    }
    assert at(place).tags() == []
    assert bundle_of(flyte.json("run", "--registry", place, "tasks.py", "hello"))["from"] == "made"
    assert "No record has the key" in flyte("cache", "rm", "f" * 64, exit_code=4).stderr
    assert "begin with" in flyte("cache", "rm", "sha256:", exit_code=2).stderr


def age(machine: Shell, place: str, days: float) -> None:
    """Publish all records of a repository anew, as if they were some days old."""
    repository = at(place)
    for tag in records(place):
        index = repository.manifest(tag)
        assert index is not None
        then = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - days * 86400))
        annotations = {**index.annotations, "org.opencontainers.image.created": then}
        old = Manifest.of_manifests(
            index.manifests, artifact_type=index.artifact_type, annotations=annotations
        )
        repository.put_manifest(old, tag)


def test_collecting_a_repository(flyte: Shell, place: str) -> None:
    """Collecting removes this project's records beyond the keep time, as a dry run shows.

    Nothing else is removed.
    """
    flyte("run", "--registry", place, "tasks.py", "hello")
    with open(flyte.project / "tasks.py", "a") as file:
        file.write("\n# other\n")
    flyte("run", "--registry", place, "--project", "theirs", "tasks.py", "hello")
    manifest = at(place).manifest(records(place)[0])
    assert manifest is not None
    at(place).put_manifest(Manifest.of_manifests(manifest.manifests), "default.development.env.v1")
    at(place).put_manifest(
        Manifest.of_manifests(manifest.manifests, annotations={"a": "b"}), "record.strange"
    )
    collect = ("cache", "gc", "--remote", "--registry", place)
    assert flyte.json(*collect)["removed"] == []
    before = set(at(place).tags())
    age(flyte, place, 20)
    assert [
        each
        for each in flyte.json(*collect, "--keep", "30 days")["removed"]
        if "the record of" in each["why"]
    ] == []
    planned = flyte.json(*collect, "--dry-run")["removed"]
    assert (
        set(at(place).tags()) == before
        and len([each for each in planned if "the record of" in each["why"]]) == 1
    )
    assert flyte.json(*collect)["removed"] == planned and len(before - set(at(place).tags())) == 1
    assert {"default.development.env.v1", "record.strange"} < set(at(place).tags()) and flyte.json(
        *collect
    )["removed"] == []
    kept = at(place).manifest("default.development.env.v1")
    assert kept is not None and all(at(place).manifest(each.digest) for each in kept.manifests)
    assert "apply to this machine" in flyte(*collect, "--max-size", "1 GB", exit_code=2).stderr


def test_collecting_a_folder_frees_its_space(flyte: Shell, tmp_path: Path) -> None:
    """Collecting a directory also removes blobs without a tag, since no other collector does."""
    place, blobs = f"oci:{tmp_path}/shared", tmp_path / "shared" / "blobs" / "sha256"
    flyte("run", "--registry", place, "tasks.py", "hello")
    age(flyte, place, 20)
    assert len(list(blobs.iterdir())) > 4
    flyte("cache", "gc", "--remote", "--registry", place)
    assert list(blobs.iterdir()) == []


def test_a_registry_that_deletes_nothing(flyte: Shell, tmp_path: Path) -> None:
    """If a registry cannot delete, the error reports it, with a hint."""
    with serve(tmp_path / "registry", delete=False) as server:
        place = server.repository("x/y")
        flyte("run", "--registry", place, "tasks.py", "hello")
        age(flyte, place, 20)
        done = flyte("cache", "gc", "--remote", "--registry", place, exit_code=3)
        assert "delet" in done.stderr and place in done.stderr
        assert (
            "delet"
            in flyte(
                "cache",
                "rm",
                "--remote",
                "--registry",
                place,
                at(place).tags()[0].removeprefix("record."),
                exit_code=3,
            ).stderr
        )


def test_a_folder_below_the_project_is_no_part_of_it(flyte: Shell) -> None:
    """A repository below the project is not part of the tree, which it would change."""
    arguments = ("run", "--copy-style", "all", "--registry", "oci:ci-cache", "tasks.py", "hello")
    first, second = bundle_of(flyte.json(*arguments)), bundle_of(flyte.json(*arguments))
    assert (first["digest"], second["from"]) == (second["digest"], "local")
