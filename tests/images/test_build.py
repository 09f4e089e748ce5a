"""Native image builds: their contents and reproducibility, and that nothing is built twice."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry import open_repository
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.retry_budget import RetryBudget
from flyte_build.errors import (
    EngineUnavailable,
    FileUnstable,
    FlyteError,
    ImageBuildError,
    SecretRefused,
    UsageError,
)
from flyte_build.images.build.base import Bases
from flyte_build.images.build.builder import BuiltImage, ImageBuilder
from flyte_build.images.build.publisher import ImagePublisher
from flyte_build.images.build.sources import BuildOptions, BuildSources
from flyte_build.images.build.step_results import StepResults
from flyte_build.images.docker.execute import describe
from flyte_build.images.layers.file_digests import ProjectFiles
from flyte_build.images.lock.pins import PinnedBase, Wheel
from flyte_build.images.oci_image import OciImage
from flyte_build.images.recipe import BaseStep, Copy, Execute, Packages, Recipe, Source, Step
from flyte_build.ops.build import layers_of
from tests.support.bases import (
    DEBIAN,
    FixedPins,
    MadeWheel,
    archive,
    base_of,
    opened,
    push_image,
    real_layer,
)
from tests.support.caches import Recorder
from tests.support.caches import opened as opened_cache
from tests.support.engines import Engine
from tests.support.needs import need
from tests.support.registries import Server, serve

__all__ = ["real_layer"]  # A fixture.
AMD64 = "linux/amd64"
BASE = "a/base"


class Machine:
    """A machine with its own cache that builds images on a base for a project."""

    def __init__(
        self,
        cache: Cache,
        root: Path,
        base: PinnedBase,
        wheels: tuple[Wheel, ...] = (),
        **options: Any,
    ) -> None:
        self.cache, self.root = cache, root
        self.pins = FixedPins({BASE: base}, wheels)
        self.counters, self.reporter = Counters(), Recorder()
        self._allowed = options.pop("allowed", frozenset())
        self._options = BuildOptions(debian="", **options)
        self.executor: Recording | None = None

    def open(self, name: RepositoryName) -> Repository:
        return open_repository(name, self.counters, RetryBudget())

    def build(self, *steps: Step, platform: str = AMD64, **recipe: Any) -> BuiltImage:
        """Build the image of these steps."""
        asked = (Source(kind="packages", packages=("x",)),) if Packages() in steps else ()
        declared = Recipe(
            base=BaseStep(kind="reference", uri=BASE), sources=asked, steps=steps, **recipe
        )
        files = ProjectFiles(str(self.root), self.cache.index, self.counters, self._allowed)
        kept = StepResults(f"{self.root}/../executed", files.root, self.cache, self.counters)
        sources = BuildSources(
            bases=Bases(self.cache, self.open),
            open_repository=self.open,
            kept=kept,
            executor=self.executor,
        )
        builder = ImageBuilder(files, self.cache, self.pins, sources, self._options, self.reporter)
        built = builder.build(declared, platform, "test")
        assert isinstance(built, BuiltImage)
        return built


@pytest.fixture
def machine(tmp_path: Path, repository: str) -> Iterator[Callable[..., Machine]]:
    """A factory of machines, each with a new cache, for one project and one base."""
    root = tmp_path / "project"
    root.mkdir(exist_ok=True)
    base = base_of(repository)
    opened_ones = []

    def make(
        *wheels: Wheel, name: str = "one", base: PinnedBase = base, **options: object
    ) -> Machine:
        opened_ones.append(opened_cache(tmp_path / name))
        return Machine(opened_ones[-1].__enter__(), root, base, wheels, **options)

    yield make
    for each in opened_ones:
        each.__exit__(None, None, None)


def files_of(machine: Machine, image: OciImage) -> dict[str, bytes | str]:
    """Return the files and link targets of all layers above the base."""
    found: dict[str, bytes | str] = {}
    for layer in image.manifest.layers[1:]:
        plain = gzip.decompress(machine.cache.blobs.read(layer.digest))
        with tarfile.open(fileobj=io.BytesIO(plain)) as layer_archive:
            for member in layer_archive:
                stream = layer_archive.extractfile(member) if member.isfile() else None
                if stream or member.issym():
                    found[member.name] = stream.read() if stream else member.linkname
    return found


def states(built: BuiltImage) -> dict[str, str]:
    """Return the state of each node by its name."""
    return {each.node.name: each.state for each in built.nodes}


def test_image_of_packages_and_variables(tmp_path: Path, machine: Callable[..., Machine]) -> None:
    """Each package has a layer on the base; variables are merged, and all else is the base's."""
    one, two = (
        MadeWheel().write(tmp_path),
        MadeWheel(name="two", files={"two.py": b""}).write(tmp_path),
    )
    built = machine(one, two).build(Packages(), env={"A": "1"}, workdir="/work")
    image = built.image
    assert image.platform == AMD64
    assert image.contents == ["the base", "packages pkg==1.0", "packages two==1.0"]
    assert image.env["A"] == "1"
    assert image.settings["WorkingDir"] == "/work"
    assert image.document["created"] == "1970-01-01T00:00:00Z"
    assert len(image.diff_ids) == len(image.manifest.layers) == 3


def test_settings_of_the_base_stay(
    tmp_path: Path, machine: Callable[..., Machine], repository: str
) -> None:
    """An image keeps the user, entry point, labels and variables of its base."""
    settings = {
        "User": "1000",
        "Entrypoint": ["/x"],
        "Labels": {"a": "b"},
        "Env": ["PATH=/usr/bin", "B=2"],
        "WorkingDir": "/home",
    }
    base = base_of(repository, settings=settings)
    image = machine(MadeWheel().write(tmp_path), base=base).build(Packages(), env={"A": "1"}).image
    assert {
        name: image.settings[name] for name in ("User", "Entrypoint", "Labels", "WorkingDir")
    } == {name: settings[name] for name in ("User", "Entrypoint", "Labels", "WorkingDir")}
    assert image.env == {"PATH": "/usr/local/bin:/usr/bin", "B": "2", "A": "1"}


def test_a_declared_path_still_finds_python(
    tmp_path: Path, machine: Callable[..., Machine]
) -> None:
    """If PATH is declared, scripts of packages come first, and the interpreter's directory last."""
    image = machine(MadeWheel().write(tmp_path)).build(Packages(), env={"PATH": "/opt/tools"}).image
    assert image.env["PATH"] == "/usr/local/bin:/opt/tools:/usr/bin"


def test_nothing_is_made_twice_and_nobody_is_asked(
    tmp_path: Path, machine: Callable[..., Machine]
) -> None:
    """The second lookup reads one record: it sends no request and builds no layer."""
    one = machine(MadeWheel().write(tmp_path))
    first = one.build(Packages())
    before = one.counters.snapshot()
    again = one.build(Packages())
    after = one.counters.snapshot()
    assert again.image == first.image
    assert states(again) == {AMD64: "cached"}
    assert {
        name: after[name] - before[name] for name in ("requests", "layers_made", "blobs_written")
    } == {
        "requests": 0,
        "layers_made": 0,
        "blobs_written": 0,
    }


def test_one_package_more_is_one_layer_more(
    tmp_path: Path, machine: Callable[..., Machine]
) -> None:
    """One more package builds one more layer, and the reason of the miss names the package."""
    one, two = (
        MadeWheel().write(tmp_path),
        MadeWheel(name="two", files={"two.py": b""}).write(tmp_path),
    )
    builder = machine(one)
    builder.build(Packages())
    builder.pins.wheels = (one, two)
    built = builder.build(Packages())
    assert states(built) == {
        "packages pkg==1.0": "cached",
        "packages two==1.0": "made",
        AMD64: "made",
    }
    assert built.nodes[-1].why == "+two==1.0"
    builder.pins.wheels = (two,)
    assert builder.build(Packages()).nodes[-1].why == "-pkg==1.0"


def test_same_image_on_every_machine(tmp_path: Path, machine: Callable[..., Machine]) -> None:
    """The config's digest depends on the declaration and the pins alone, not on compression."""
    wheel = MadeWheel().write(tmp_path)
    (tmp_path / "project/a.txt").write_text("a")
    steps = (Packages(), Copy("a.txt", "/app/", False))
    images = [
        machine(wheel, name=kind, compression=kind).build(*steps, env={"A": "1"}).image
        for kind in ("gzip", "zstd", "none")
    ]
    assert len({image.identity for image in images}) == 1
    assert len({image.manifest.digest for image in images}) == 3


@pytest.mark.parametrize(
    "change", ["env", "workdir", "file", "mode", "destination", "base", "wheel"]
)
def test_what_changes_an_image(
    tmp_path: Path, machine: Callable[..., Machine], repository: str, change: str
) -> None:
    """Every declared or pinned value is part of the key, and the reason of the miss names it."""
    source = tmp_path / "project/a.txt"
    source.write_text("a")
    builder = machine(MadeWheel().write(tmp_path))
    options: dict[str, Any] = {"env": {"A": "1"}, "workdir": "/w"}
    steps: list[Step] = [Packages(), Copy("a.txt", "/app/", False)]
    first = builder.build(*steps, **options)
    match change:
        case "env":
            options["env"] = {"A": "2"}
        case "workdir":
            options["workdir"] = "/v"
        case "file":
            source.write_text("b")
        case "mode":
            source.chmod(0o755)
        case "destination":
            steps[1] = Copy("a.txt", "/lib/", False)
        case "base":
            builder.pins.bases[BASE] = base_of(repository, {**DEBIAN, "etc/x": b""})
        case "wheel":
            builder.pins.wheels = (
                MadeWheel(files={"pkg/__init__.py": b"x = 2\n"}).write(tmp_path / "2"),
            )
    second = builder.build(*steps, **options)
    assert second.image.identity != first.image.identity
    expected = {
        "env": "env",
        "workdir": "/w -> /v",
        "base": "base changed",
        "wheel": "pkg==1.0 has another wheel",
    }
    assert expected.get(change, "steps") in second.nodes[-1].why


def test_copied_files(tmp_path: Path, machine: Callable[..., Machine]) -> None:
    """Files and directories are copied as by docker's COPY, without those in .dockerignore."""
    root = tmp_path / "project"
    (root / "src/sub").mkdir(parents=True)
    (root / "src/__pycache__").mkdir()
    (root / "src/__pycache__/a.pyc").write_bytes(b"x")
    (root / "src/a.py").write_text("a")
    (root / "src/run.sh").write_text("#!/bin/sh")
    (root / "src/run.sh").chmod(0o755)
    (root / "src/sub/b.log").write_text("b")
    (root / "src/sub/keep.log").write_text("k")
    (root / "src/link").symlink_to("sub/keep.log")
    (root / ".dockerignore").write_text("# comment\n**/*.log\n!src/sub/keep.log\n")
    one = machine()
    steps = (
        Copy("src", "/app", True),
        Copy("src/a.py", ".", False),
        Copy("src/a.py", "/etc/b.py", False),
        Copy("src/sub", "./sub", True),
    )
    image = one.build(*steps, workdir="/home/me").image
    assert files_of(one, image) == {
        "app/a.py": b"a",
        "app/run.sh": b"#!/bin/sh",
        "app/sub/keep.log": b"k",
        "app/link": "sub/keep.log",
        "home/me/a.py": b"a",
        "etc/b.py": b"a",
        "home/me/sub/keep.log": b"k",
    }


def test_copy_through_a_link_of_the_base(tmp_path: Path, machine: Callable[..., Machine]) -> None:
    """A copy to a directory that is a link in the base goes to its target, and keeps the link."""
    (tmp_path / "project/tool").write_text("x")
    one = machine()
    assert list(files_of(one, one.build(Copy("tool", "/bin/", False)).image)) == ["usr/bin/tool"]


@pytest.mark.parametrize("name", [".env", "keys/id"])
def test_secrets_are_refused(tmp_path: Path, machine: Callable[..., Machine], name: str) -> None:
    """Files that look like credentials are refused, unless they are allowed or ignored."""
    path = tmp_path / "project/src" / name
    path.parent.mkdir(parents=True)
    path.write_text("-----BEGIN PRIVATE KEY-----\n" + "A" * 64)
    step = Copy("src", "/app", True)
    for _ in range(2):  # Also when nothing has changed.
        with pytest.raises(SecretRefused, match=f"src/{name}"):
            machine(name=f"refusing{_}").build(step)
    machine(name="allowed", allowed=frozenset({f"src/{name}"})).build(step)
    (tmp_path / "project/.dockerignore").write_text(f"src/{name}\n")
    assert machine(name="ignoring").build(step)


@pytest.mark.parametrize("kind", ["out", "absolute", "fifo", "missing", "outside"])
def test_what_cannot_be_copied(tmp_path: Path, machine: Callable[..., Machine], kind: str) -> None:
    """The error about a copy names a link that leads out, a special file or a wrong path."""
    folder = tmp_path / "project/src"
    folder.mkdir()
    (tmp_path / "secret").write_text("s")
    step = Copy("src", "/app", True)
    match kind:
        case "out":
            (folder / "x").symlink_to("../../secret")
        case "absolute":
            (folder / "x").symlink_to("/etc/passwd")
        case "fifo":
            os.mkfifo(folder / "x")
        case "missing":
            step = Copy("other", "/app", True)
        case "outside":
            step = Copy("../secret", "/app", False)
    with pytest.raises(FlyteError) as error:
        machine().build(step)
    assert isinstance(
        error.value, UsageError if kind in ("missing", "outside") else ImageBuildError
    )
    assert {"missing": "other", "outside": "../secret"}.get(kind, "src/x") in error.value.what


def test_base_without_python(
    machine: Callable[..., Machine], repository: str, tmp_path: Path
) -> None:
    """A base without Python takes files, and no packages."""
    (tmp_path / "project/a").write_text("a")
    one = machine(MadeWheel().write(tmp_path), base=base_of(repository, {"bin/sh": b""}))
    one.build(Copy("a", "/a", False))
    with pytest.raises(ImageBuildError, match="no Python"):
        one.build(Packages())


def test_base_with_another_python(
    machine: Callable[..., Machine], repository: str, tmp_path: Path
) -> None:
    """Packages that are locked for another Python than the base's are refused."""
    one = machine(
        MadeWheel().write(tmp_path),
        base=base_of(repository, {"usr/bin/python3": "python3.12", "usr/bin/python3.12": b""}),
    )
    one.pins.bases[BASE] = replace(one.pins.bases[BASE], python="3.11")
    with pytest.raises(ImageBuildError, match=r"has Python 3\.12"):
        one.build(Packages())


def test_musl_base(machine: Callable[..., Machine], repository: str, tmp_path: Path) -> None:
    """Binary wheels for glibc are refused on a base with musl."""
    files: dict[str, bytes | str] = {
        "usr/bin/python3": "python3.11",
        "usr/bin/python3.11": b"",
        "lib/ld-musl-x86_64.so.1": b"",
    }
    wheel = MadeWheel(tag="cp311-cp311-manylinux_2_17_x86_64").write(tmp_path)
    with pytest.raises(ImageBuildError, match="musl"):
        machine(wheel, base=base_of(repository, files)).build(Packages())


def test_missing_and_moved_wheels(tmp_path: Path, machine: Callable[..., Machine]) -> None:
    """The error about a missing wheel, or one other than locked, names the package."""
    wheel = MadeWheel().write(tmp_path)
    path = Path(wheel.url.removeprefix("file://"))
    path.rename(tmp_path / "gone")
    with pytest.raises(ImageBuildError, match=r"Cannot fetch the wheel of pkg 1\.0"):
        machine(wheel).build(Packages())
    MadeWheel(files={"pkg/__init__.py": b"evil"}).write(tmp_path)
    with pytest.raises(ImageBuildError, match=r"pkg 1\.0 is not the locked one"):
        machine(wheel, name="two").build(Packages())


def test_steps_that_need_an_engine(machine: Callable[..., Machine]) -> None:
    """Without an engine the error names the step that needs one."""
    with pytest.raises(EngineUnavailable, match="apt-get install curl"):
        machine().build(Execute(apt=("curl",)))


class Recording:
    """An executor that executes nothing, and adds a layer with the description of the step."""

    def __init__(self, cache: Cache) -> None:
        self.cache, self.asked = cache, list[str]()

    def execute(
        self, base: OciImage, step: Execute, env: Mapping[str, str], workdir: str, fetch: object
    ) -> OciImage:
        from flyte_build.cas.layer import write_archive
        from flyte_build.images.oci_image import Added

        what = describe(step)
        self.asked.append(what)
        with self.cache.blobs.batch() as batch:
            layer = write_archive(
                [archive({f"did/{len(self.asked)}": what.encode()})], batch, "gzip"
            )
            image = base.change([Added.of(layer, "gzip", what)])
            image.write(batch)
        return image

    def build(self, file: str, platform: str) -> OciImage:
        raise AssertionError


def test_executed_steps_are_pinned(tmp_path: Path, machine: Callable[..., Machine]) -> None:
    """An executed step is pinned as the base of what follows, and not executed again."""
    one = machine(MadeWheel().write(tmp_path))
    executor = Recording(one.cache)
    one.executor = executor
    steps = (Execute(apt=("curl",)), Packages(), Execute(commands=("make",)))
    first = one.build(*steps)
    assert first.image.contents == ["the base", "apt-get install curl", "packages pkg==1.0", "make"]
    assert len(one.pins.steps) == 2
    again = one.build(*steps)
    assert again.image == first.image
    assert executor.asked == ["apt-get install curl", "make"]
    assert [layer["state"] for layer in layers_of(first)] == ["base", "made", "made", "made"]
    assert [layer["state"] for layer in layers_of(again)] == ["base", "cached", "cached", "cached"]
    changed = one.build(*steps[:2], Execute(commands=("make install",)))
    assert executor.asked == ["apt-get install curl", "make", "make install"]
    assert changed.image.contents[:3] == first.image.contents[:3]


PYTHONS: list[tuple[Mapping[str, bytes | str], str, str, str]] = [
    (DEBIAN, "/usr/bin/python3.11", "/usr/local/lib/python3.11/dist-packages", "/usr/local/bin"),
    (
        {**DEBIAN, "usr/local/bin/python3.12": b"", "usr/local/bin/python3": "python3.12"},
        "/usr/local/bin/python3.12",
        "/usr/local/lib/python3.12/site-packages",
        "/usr/local/bin",
    ),
    (
        {
            "usr/bin/python3": "/etc/alternatives/python3",
            "etc/alternatives/python3": "../../opt/py/bin/python3.13",
            "opt/py/bin/python3.13": b"",
        },
        "/opt/py/bin/python3.13",
        "/opt/py/lib/python3.13/site-packages",
        "/opt/py/bin",
    ),
    (
        {
            "usr/bin/python3": "python3.12",
            "usr/bin/python3.12": b"",
            "usr/lib64/python3.12/os.py": b"",
        },
        "/usr/bin/python3.12",
        "/usr/local/lib/python3.12/site-packages",
        "/usr/local/bin",
    ),
]


@pytest.mark.parametrize(("files", "executable", "packages", "scripts"), PYTHONS)
def test_python_is_found_in_the_base(
    cache: Cache,
    repository: str,
    files: Mapping[str, bytes | str],
    executable: str,
    packages: str,
    scripts: str,
) -> None:
    """The Python of a base is the one that a plain `python3` starts, with its directories."""
    pinned = base_of(repository, files)
    found = Bases(cache, lambda name: opened(name.text)).get(pinned, AMD64).interpreter
    assert found is not None
    assert (found.executable, found.packages, found.scripts) == (executable, packages, scripts)


def test_virtual_environment_on_the_path(cache: Cache, repository: str) -> None:
    """Packages go into a virtual environment that comes first on the base's PATH."""
    files = {**DEBIAN, "venv/bin/python3": "/usr/bin/python3", "venv/pyvenv.cfg": b""}
    pinned = base_of(repository, files, settings={"Env": ["PATH=/venv/bin:/usr/bin"]})
    found = Bases(cache, lambda name: opened(name.text)).get(pinned, AMD64).interpreter
    assert found is not None
    assert (found.executable, found.packages) == (
        "/venv/bin/python3",
        "/venv/lib/python3.11/site-packages",
    )


def test_whiteouts(cache: Cache, repository: str) -> None:
    """Files that a later layer of the base removes do not count."""
    newer: dict[str, bytes | str] = {
        "opt/py/bin/python3.12": b"",
        "usr/local/bin/python3": "/opt/py/bin/python3.12",
    }
    gone = {"usr/local/bin/.wh.python3": b"", "opt/.wh..wh..opq": b""}
    manifest = push_image(repository, [archive(DEBIAN), archive(newer), archive(gone)])
    found = Bases(cache, lambda name: opened(name.text)).get(
        PinnedBase(reference=repository, digest=manifest.digest, python=""), AMD64
    )
    assert found.interpreter is not None
    assert found.interpreter.version == "3.11"


def test_base_is_read_once(cache: Cache, repository: str) -> None:
    """The properties of a base are recorded under its digest: later, no layer is read.

    No request is sent, either.
    """
    counters = Counters()
    bases = Bases(cache, lambda name: open_repository(name, counters, RetryBudget()))
    manifest = push_image(
        repository,
        [gzip.compress(archive(DEBIAN))],
        media_type="application/vnd.oci.image.layer.v1.tar+gzip",
    )
    pinned = bases.look_up(repository)
    assert (pinned.digest, pinned.python) == (manifest.digest, "3.11")
    asked = counters.snapshot()["requests"]
    cache.blobs.delete(manifest.layers[0].digest)
    assert bases.get(pinned, AMD64).image.manifest == manifest
    assert counters.snapshot()["requests"] == asked


def test_index_of_platforms(cache: Cache, repository: str) -> None:
    """A base for several platforms gives the requested one; an error names one that it lacks."""
    from flyte_build.cas.registry.manifest import Manifest

    amd, arm = (
        push_image(repository, [archive(DEBIAN)]),
        push_image(repository, [archive(DEBIAN)], architecture="arm64", tag="arm"),
    )
    index = Manifest.of_platforms(
        [
            (each.descriptor, {"os": "linux", "architecture": name})
            for each, name in ((amd, "amd64"), (arm, "arm64"))
        ]
    )
    opened(repository).put_manifest(index, "both")
    bases = Bases(cache, lambda name: opened(name.text))
    pinned = bases.look_up(f"{repository}:both")
    assert pinned.digest == index.digest
    assert bases.get(pinned, "linux/arm64").image.manifest == arm
    with pytest.raises(ImageBuildError, match="not available for linux/s390x"):
        bases.get(pinned, "linux/s390x")


def test_push_moves_only_what_is_new(
    tmp_path: Path, machine: Callable[..., Machine], registry: Server, repository: str
) -> None:
    """The base's layers are mounted from its repository; a second image sends one new layer."""
    one, two = (
        MadeWheel().write(tmp_path),
        MadeWheel(name="two", files={"two.py": os.urandom(9000).hex().encode()}).write(tmp_path),
    )
    base = base_of(repository, {**DEBIAN, "usr/lib/large": os.urandom(1 << 20)})
    builder = machine(one, base=base)
    target = builder.open(RepositoryName.parse(f"{repository}/images"))
    publisher = ImagePublisher(
        target, builder.cache, [builder.open(RepositoryName.parse(repository))]
    )
    first = builder.build(Packages()).image
    before = builder.counters.snapshot()["bytes_sent"]
    publisher.push(first, "one")
    assert builder.counters.snapshot()["bytes_sent"] - before < 10_000
    builder.pins.wheels = (one, two)
    second = builder.build(Packages()).image
    before = builder.counters.snapshot()["bytes_sent"]
    publisher.push(second, "two")
    (new,) = (layer.size for layer in second.manifest.layers if layer not in first.manifest.layers)
    assert new <= builder.counters.snapshot()["bytes_sent"] - before < new + 5000
    found = target.manifest("two")
    assert found is not None
    assert found.digest == second.manifest.digest


def test_push_to_another_registry(
    tmp_path: Path, machine: Callable[..., Machine], repository: str
) -> None:
    """Across registries the base's layers are streamed once, even if this machine has lost them."""
    base = base_of(repository, {**DEBIAN, "usr/lib/large": os.urandom(1 << 20)})
    builder = machine(MadeWheel().write(tmp_path), base=base)
    image = builder.build(Packages(), env={"A": "1"}).image
    builder.cache.blobs.delete(image.manifest.layers[0].digest)
    with serve(tmp_path / "other") as other:
        target = builder.open(RepositoryName.parse(other.repository("images")))
        publisher = ImagePublisher(
            target, builder.cache, [builder.open(RepositoryName.parse(repository))]
        )
        publisher.push(image, "one")
        assert builder.counters.snapshot()["bytes_sent"] > 1 << 20
        before = builder.counters.snapshot()["bytes_sent"]
        publisher.push(builder.build(Packages(), env={"A": "2"}).image, "two")
        assert builder.counters.snapshot()["bytes_sent"] - before < 10_000


def test_file_that_changes_meanwhile(tmp_path: Path, machine: Callable[..., Machine]) -> None:
    """A file that changes between its hashing and packing is an error, and never another layer."""
    path = tmp_path / "project/a.txt"
    path.write_text("a")
    one = machine()
    from flyte_build.images.layers.files import Copier, write_layer

    copier = Copier(ProjectFiles(str(tmp_path / "project"), one.cache.index, one.counters))
    copied = copier.collect(Copy("a.txt", "/a", False))
    path.write_text("b")
    with pytest.raises(FileUnstable, match=r"a\.txt changed"), one.cache.blobs.batch() as batch:
        write_layer(copied, lambda name: "a", batch, "gzip")


def test_config_is_what_oci_wants(tmp_path: Path, machine: Callable[..., Machine]) -> None:
    """The config follows the OCI specification, and its history describes each layer."""
    image = machine(MadeWheel().write(tmp_path)).build(Packages()).image
    document = json.loads(image.config)
    assert set(document) == {"architecture", "os", "created", "config", "rootfs", "history"}
    assert Digest.of(image.config) == image.identity
    assert sum(not each.get("empty_layer") for each in document["history"]) == len(
        document["rootfs"]["diff_ids"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ],
)
def test_real_engines_take_the_image(
    tmp_path: Path,
    machine: Callable[..., Machine],
    repository: str,
    real_layer: Path,
    media_type: str,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Docker pulls an image on a real base, whose python3 imports the packages.

    Scripts run, too, and another user can import the packages.
    """
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    base = push_image(
        repository,
        [real_layer],
        media_type=media_type,
        settings={"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
    )
    files = {"pkg/__init__.py": b"def main():\n    print('hello')\n", "pkg/data.txt": b"x" * 9000}
    wheel = MadeWheel(files=files, scripts={"hello": "pkg:main"}).write(tmp_path)
    (tmp_path / "project/a.txt").write_text("a")
    one = machine(wheel, base=PinnedBase(reference=repository, digest=base.digest, python="3.11"))
    image = one.build(
        Packages(), Copy("a.txt", "/app/sub/", False), env={"A": "1"}, workdir="/app"
    ).image
    name = f"{repository}/images"
    ImagePublisher(one.open(RepositoryName.parse(name)), one.cache).push(image, "real")
    reference = f"{name}@{image.manifest.digest}"
    docker("pull", "--quiet", reference)
    try:
        code = (
            "import os, pkg; pkg.main(); print(os.environ['A'], os.getcwd(),"
            " open('sub/a.txt').read())"
        )
        assert (
            docker("run", "--rm", "--user", "1000", reference, "python3", "-c", code)
            == "hello\n1 /app a\n"
        )
        assert docker("run", "--rm", reference, "hello") == "hello\n"
        assert docker("inspect", "--format", "{{.Id}}", reference).strip() == image.identity
    finally:
        docker("rmi", "--force", image.identity)


def docker(*args: str) -> str:
    """Run a docker command that must succeed, and return its output."""
    ran = subprocess.run(["docker", *args], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_skopeo_takes_the_image(
    tmp_path: Path, machine: Callable[..., Machine], repository: str
) -> None:
    """skopeo inspects and copies an image completely, zstd layers included."""
    need("skopeo")
    for compression in ("gzip", "zstd"):
        one = machine(
            MadeWheel(files={"pkg/x.txt": b"x" * 99_999}).write(tmp_path),
            name=compression,
            compression=compression,
        )
        image = one.build(Packages()).image
        ImagePublisher(one.open(RepositoryName.parse(repository)), one.cache).push(
            image, compression
        )
        source = f"docker://{repository}:{compression}"
        shown = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", source], capture_output=True, check=True
        )
        assert json.loads(shown.stdout)["Digest"] == image.manifest.digest
        target = f"oci:{tmp_path}/copy-{compression}:x"
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--src-tls-verify=false", source, target], check=True
        )


def test_collection_keeps_an_image(tmp_path: Path, machine: Callable[..., Machine]) -> None:
    """A collection keeps manifest, config and own layers of an image that was used recently."""
    from flyte_build.cas.gc import collect

    one = machine(MadeWheel().write(tmp_path))
    image = one.build(Packages()).image
    collect(one.cache, 3600, dry_run=False)
    own = [
        image.manifest.digest,
        image.identity,
        *(layer.digest for layer in image.manifest.layers[1:]),
    ]
    assert all(map(one.cache.blobs.has, own))
    assert states(one.build(Packages())) == {AMD64: "cached"}
    collect(one.cache, 0, dry_run=False)
    assert not any(map(one.cache.blobs.has, own))
    assert one.build(Packages()).image == image
