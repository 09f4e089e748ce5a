"""Artifacts that others have published may be anything, and results are still right.

It does not matter which command fetched them first.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from flyte_build.bundler import bundle
from flyte_build.cas.digest import Key
from flyte_build.cas.records import Record
from tests.cas.registry.test_shared_cache import at, bundle_of
from tests.support import forgery
from tests.support.caches import layer, opened
from tests.support.command import Shell
from tests.support.files import archive
from tests.support.forgery import Forge, Forger

pytestmark = pytest.mark.slow

TASKS = '''
import hashlib, os
import flyte

env = flyte.TaskEnvironment(name="t")

@env.task
def state() -> list[str]:
    """All that the code is: paths, modes, contents."""
    root, found = os.path.dirname(os.path.abspath(__file__)), []
    for here, folders, files in os.walk(root):
        for name in files + [name for name in folders if os.path.islink(f"{here}/{name}")]:
            path = f"{here}/{name}"
            data = os.readlink(path).encode() if os.path.islink(path) else open(path, "rb").read()
            mode = "l" if os.path.islink(path) else "x" if os.stat(path).st_mode & 0o100 else "f"
            found.append(f"{os.path.relpath(path, root)} {mode} {hashlib.sha256(data).hexdigest()}")
    return sorted(found)
'''
FLOWS: dict[str, tuple[str, ...]] = {
    "run": (),
    "pull": ("cache", "pull"),
    "pull FILE": ("cache", "pull", "tasks.py"),
    "ls": ("bundle", "ls", "tasks.py"),
    "warm": ("cache", "warm", "tasks.py"),
    "deploy": ("deploy", "--version", "v1", "tasks.py"),
}
# Every seventh case is for each test run, with each of the commands; the others are slow.
_STEP = 7


@dataclass(frozen=True)
class Good:
    """A project, the directory with the bundle that a machine published, and the task's result."""

    project: Path
    shared: Path
    state: list[str]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    """The good bundle, from which the bad ones differ."""
    folder = tmp_path_factory.mktemp("good")
    project = folder / "project"
    (project / "lib").mkdir(parents=True)
    (project / "tasks.py").write_text(TASKS)
    (project / "lib" / "data.txt").write_text("Hello\n" * 100)
    (project / "tool.sh").write_text("#!/bin/sh\n")
    (project / "tool.sh").chmod(0o755)
    (project / "link").symlink_to("lib/data.txt")
    (project / "flyte.toml").write_text('run.copy_style = "all"\n')
    machine = Shell(project, folder / "home")
    done = machine.json("run", "--registry", f"oci:{folder}/shared", "tasks.py", "state")
    return Good(project, folder / "shared", next(iter(done["outputs"].values())))


def cases(forged: Iterator[tuple[str, Forge]]) -> list[ParameterSet]:
    """Combine each case with one of the commands, in turns."""
    found = []
    for number, (name, forge) in enumerate(forged):
        flow = list(FLOWS)[(number // _STEP if number % _STEP == 0 else number) % len(FLOWS)]
        marks = () if number % _STEP == 0 else (pytest.mark.slow,)
        found.append(pytest.param(forge, flow, marks=marks, id=f"{name}, {flow}"))
    return found


@pytest.fixture
def machine(good: Good, tmp_path: Path) -> Iterator[Shell]:
    """A machine with an empty cache."""
    yield Shell(good.project, tmp_path / "home")
    for folder, _, _ in os.walk(tmp_path / "home"):
        os.chmod(folder, 0o700)


def check(machine: Shell, good: Good, flow: str, place: str) -> None:
    """Run the command and the task, and check that results are right and nothing bad is left."""
    spoken, there = "", {"FLYTE_REGISTRY": place}
    if FLOWS[flow]:
        try:
            done = machine(*FLOWS[flow], env=there)
        # It may say that something is missing; it may not fall over.
        except AssertionError as error:
            assert "Traceback" not in str(error), error
            done = machine(*FLOWS[flow], env=there, exit_code=3)
        spoken = done.stdout + done.stderr
    first = machine("-of", "json", "run", "tasks.py", "state", env=there)
    again = machine("-of", "json", "run", "tasks.py", "state")
    for done in (first, again):
        assert next(iter(json.loads(done.stdout)["outputs"].values())) == good.state
        spoken += done.stderr
    assert "\x1b" not in spoken and "\x07" not in spoken and "Traceback" not in spoken
    assert bundle_of(json.loads(again.stdout))["from"] == "local"
    assert machine.json("cache", "verify")["bad"] == []


@pytest.mark.parametrize("forge, flow", cases(forgery.packs()))
def test_bad_packs(machine: Shell, good: Good, tmp_path: Path, forge: Forge, flow: str) -> None:
    """A run gives the right result, whatever the layers hold and their diff_ids claim."""
    forge(Forger(good.shared, tmp_path / "shared"))
    check(machine, good, flow, f"oci:{tmp_path}/shared")


@pytest.mark.parametrize("forge, flow", cases(forgery.documents()))
def test_bad_documents(machine: Shell, good: Good, tmp_path: Path, forge: Forge, flow: str) -> None:
    """A run gives the right result, whatever the record, the manifest and the config claim."""
    forge(Forger(good.shared, tmp_path / "shared"))
    check(machine, good, flow, f"oci:{tmp_path}/shared")


def some(forged: Iterator[tuple[str, Forge]], *names: str) -> list[ParameterSet]:
    """Return the cases of these names."""
    return [pytest.param(forge, id=name) for name, forge in forged if name in names]


@pytest.mark.parametrize(
    "forge",
    some(
        forgery.packs(),
        "other bytes of a file",
        "a second frame",
        "a wrong diff_id",
        "an empty bundle",
    ),
)
@pytest.mark.parametrize("flow", ["run", "pull"])
def test_a_registry_with_a_bad_bundle(
    machine: Shell, good: Good, tmp_path: Path, repository: str, forge: Forge, flow: str
) -> None:
    """A real registry, which checks only digests and sizes, may hold a bad bundle, too."""
    forger = Forger(good.shared, tmp_path / "shared")
    forge(forger)
    source, target = at(f"oci:{tmp_path}/shared"), at(repository)
    record = source.manifest(forger.tag)
    assert record is not None
    bad = source.manifest(record.manifests[0].digest)
    assert bad is not None
    for blob in bad.blobs():
        target.upload(
            blob,
            partial(FileIO, forger.layout.blob(blob.digest)),
            lambda count: None,
        )
    target.put_manifest(bad)
    target.put_manifest(record, forger.tag)
    check(machine, good, flow, repository)
    fresh = Shell(good.project, tmp_path / "fresh")
    # It was put right there.
    assert (
        bundle_of(fresh.json("run", "--registry", repository, "tasks.py", "state"))["from"]
        == repository
    )


@pytest.mark.parametrize("command", ["run", "verify", "code"])
def test_a_record_that_proves_wrong_later(
    machine: Shell, good: Good, tmp_path: Path, command: str
) -> None:
    """A wrong record of an older version is dropped by any command that meets it, and rebuilt."""
    made = bundle_of(machine.json("run", "tasks.py", "state"))
    run = machine.last_run()["name"]
    with opened(machine.home / "cache") as cache:
        record = cache.records.find(Key(made["key"]))
        assert record is not None
        tree = bundle.read_tree(bundle.read(record.artifact, cache.blobs), cache.blobs)
        with cache.blobs.batch() as batch:
            bad = bundle.write(
                tree, [layer(cache, archive({"tasks.py": b"raise SystemExit('evil')"}))], batch
            )
        refs = (*bad.blobs(), tree.digest)
        cache.records.add(Record(record.key, "bundle", bad.manifest, refs, record.inputs))
        for folder, _, _ in os.walk(cache.extractions):
            os.chmod(folder, 0o700)
        shutil.rmtree(cache.extractions)
        os.mkdir(cache.extractions)
    if command == "verify":
        (found,) = machine.json("cache", "verify")["bad"]
        assert found["digest"] == bad.manifest and "rebuilt" in found["what"]
    elif command == "code":
        machine("get", "code", run, "-o", str(tmp_path / "out"), exit_code=4)
    check(machine, good, "run", f"oci:{tmp_path}/shared")


def test_a_deployment_whose_bundle_is_bad(machine: Shell, good: Good, tmp_path: Path) -> None:
    """A deployment with a bad bundle fails to run, and does not affect other commands."""
    place = f"oci:{tmp_path}/shared"
    shutil.copytree(good.shared, tmp_path / "deployed")
    author = Shell(good.project, tmp_path / "author")
    author("deploy", "--registry", f"oci:{tmp_path}/deployed", "--version", "v1", "tasks.py")
    forger = Forger(tmp_path / "deployed", tmp_path / "shared")
    forger.set_layer(-1, forger.packs[-1].replace(b"Hello", b"Howdy"))
    forger.publish()
    bad = forger.record["manifests"][0]["digest"]
    forger.layout.replace(
        "default.development.t.v1", lambda index: index["manifests"][1].update(digest=bad)
    )
    done = machine("run", "--registry", place, "deployed-task", "t.state:v1", exit_code=3)
    assert "does not have the digest in its tree" in done.stderr
    check(machine, good, "run", place)
    assert machine("run", "--registry", place, "deployed-task", "t.state:v1", exit_code=0).stdout


def test_a_bundle_that_was_cut_otherwise(machine: Shell, good: Good, tmp_path: Path) -> None:
    """A bundle that is cut into other packs is used and listed; an edit makes a regular one of it.

    Here it has one pack for each file, in no order.
    """
    place = f"oci:{tmp_path}/shared"
    forger = Forger(good.shared, tmp_path / "shared")
    forger.recut()
    forger.publish()
    found = machine.json("run", "--registry", place, "tasks.py", "state")
    assert bundle_of(found)["from"] == place and next(iter(found["outputs"].values())) == good.state
    assert [pack["files"] for pack in machine.json("bundle", "ls", "tasks.py")["packs"]] == [
        None
    ] * len(good.state)
    project = shutil.copytree(good.project, tmp_path / "project", symlinks=True)
    (project / "new.txt").write_text("new")
    edited = Shell(project, machine.home).json("run", "--registry", place, "tasks.py", "state")
    assert len(next(iter(edited["outputs"].values()))) == len(good.state) + 1
