"""Images: lookup, one more package, first build, composition; against uv and `docker build`.

The packages come from an index and the base from Debian, once; no timing includes a download.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import FLYTE, HELLO, forget, paired, report
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.registry import open_repository
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.retry_budget import RetryBudget
from flyte_build.cas.registry.transfer import Transfer
from flyte_build.graph.reporter import Reporter
from flyte_build.images.build.base import Bases
from flyte_build.images.build.builder import BuiltImage, ImageBuilder
from flyte_build.images.build.compose import compose
from flyte_build.images.build.publisher import ImagePublisher
from flyte_build.images.build.sources import BuildOptions, BuildSources
from flyte_build.images.build.step_results import StepResults
from flyte_build.images.layers.file_digests import ProjectFiles
from flyte_build.images.layers.wheel_download import Fetcher
from flyte_build.images.lock.pins import PinnedBase, Wheel
from flyte_build.images.lock.project_lock import Pins
from flyte_build.images.oci_image import OciImage
from flyte_build.images.platforms import linux_here
from flyte_build.images.recipe import Recipe
from tests.support.bases import push_image, rootfs
from tests.support.caches import make_bundle
from tests.support.engines import docker_engine
from tests.support.files import write_files
from tests.support.needs import need
from tests.support.registries import Server, serve

ROUNDS = 3
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
PACKAGES = (
    *(
        "numpy",
        "pandas",
        "scipy",
        "scikit-learn",
        "pillow",
        "sqlalchemy",
        "pydantic",
        "httpx",
        "requests",
    ),
    *("rich", "jinja2", "pyyaml", "attrs", "tqdm"),
)
MORE = "more-itertools"
FILE = """import flyte

image = flyte.Image.from_debian_base().with_pip_packages({packages})
env = flyte.TaskEnvironment(name="bench", image=image)


@env.task
def task() -> int:
    return 1
"""
DOCKERFILE = """FROM {base}
COPY wheels /wheels
COPY {requirements} /requirements.txt
RUN python3 /wheels/pip.whl/pip install --break-system-packages --no-index --no-deps --find-links /wheels -r /requirements.txt
"""


@dataclass
class Setting:
    """A project with pinned packages, a cache with their wheels, a base in a registry."""

    folder: Path
    registry: Server
    cache: Cache
    base: PinnedBase
    counters: Counters

    def open(self, name: RepositoryName) -> Repository:
        return open_repository(name, self.counters, RetryBudget())

    def recipe(self, *packages: str) -> Recipe:
        step = {"step": "pip_packages", "packages": list(packages)}
        return Recipe.of(
            {"base": {"step": "reference", "uri": self.base.reference}, "steps": [step]}
        )

    def pins(self, locked: bool = True) -> Pins:
        return Pins(
            str(self.folder), print, locked=locked, look_up=lambda reference, with_python: self.base
        )

    def wheels(self, *packages: str) -> tuple[Wheel, ...]:
        return self.pins(False).packages(self.recipe(*packages), PYTHON, linux_here()).wheels

    def build(self, *packages: str, remake: bool = False) -> BuiltImage:
        files = ProjectFiles(str(self.folder), self.cache.index, self.counters)
        kept = StepResults(f"{self.folder}/executed", files.root, self.cache, self.counters)
        sources = BuildSources(
            bases=Bases(self.cache, self.open), open_repository=self.open, kept=kept
        )
        builder = ImageBuilder(
            files,
            self.cache,
            self.pins(),
            sources,
            BuildOptions(debian="", anew=remake),
            Reporter(),
        )
        with self.cache.preparing():
            built = builder.build(self.recipe(*packages), linux_here(), "bench")
        assert built is not None
        return built


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A project with about 30 packages, pure and binary ones, whose wheels are in the cache."""
    folder = tmp_path_factory.mktemp("images")
    with serve(folder / "registry") as server:
        name = server.repository("bench/base")
        manifest = push_image(name, [rootfs()])
        counters = Counters()
        cache = Cache.open(str(folder / "home/cache"), counters, print)
        base = PinnedBase(reference=f"{name}:latest", digest=manifest.digest, python=PYTHON)
        here = Setting(folder / "project", server, cache, base, counters)
        here.folder.mkdir()
        wheels = {
            wheel.digest: wheel
            for each in (PACKAGES, (*PACKAGES, MORE))
            for wheel in here.wheels(*each)
        }
        Fetcher(str(here.folder), cache.blobs, counters).fetch(list(wheels.values()))
        here.pins(False).base(base.reference)
        here.build()
        yield here
        cache.database.close()
    forget(folder)


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def test_is_it_there(benchmark: BenchmarkFixture, setting: Setting) -> None:
    """Looking an image up reads flyte.lock and one record, inside the process."""
    setting.build(*PACKAGES)
    before = setting.counters.snapshot()["requests"]
    times = [seconds(lambda: setting.build(*PACKAGES)) for _ in range(50)]
    assert setting.counters.snapshot()["requests"] == before
    benchmark.pedantic(lambda: setting.build(*PACKAGES), rounds=5)
    report(
        "is the image there, ms",
        1000 * statistics.median(times),
        "at most 5",
        "no request; flyte.lock parsed each time",
    )


def test_first_build_against_uv(benchmark: BenchmarkFixture, setting: Setting) -> None:
    """A first build of all layers is compared to `uv pip install` of the same packages.

    The latter copies them from its warm cache into a new directory.
    """
    wheels = setting.wheels(*PACKAGES)
    folder = setting.folder / "uv"
    folder.mkdir()
    lines = [f"{wheel.name}=={wheel.version}" for wheel in wheels]
    (folder / "requirements.txt").write_text("\n".join(lines))
    uv = os.path.join(os.path.dirname(sys.executable), "uv")
    install = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--python-version",
        PYTHON,
        "--link-mode",
        "copy",
    ]
    command = [*install, "--target", "out", "-r", "requirements.txt"]
    environment = {**os.environ, "UV_CACHE_DIR": str(folder / "cache")}

    def theirs() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        subprocess.run(command, cwd=folder, env=environment, check=True)

    theirs()
    removing = seconds(lambda: shutil.rmtree(folder / "out"))
    ours, base = paired(lambda: setting.build(*PACKAGES, remake=True), theirs, ROUNDS)
    base -= removing
    benchmark.pedantic(lambda: None)
    benchmark.extra_info["ratio"] = ours / base
    size = sum(wheel.size for wheel in wheels) / 1e6
    report(
        f"first build of {len(wheels)} wheels to uv pip install",
        ours / base,
        "at most 2",
        f"{ours:.2f} s to {base:.2f} s, {size:.0f} MB",
    )


def test_one_package_more_against_docker(benchmark: BenchmarkFixture, setting: Setting) -> None:
    """`flyte build --push` with one more package is compared to `docker build`.

    The latter has a warm cache and the wheels at hand; nothing else changed.
    """
    need("docker")
    context, wheels = setting.folder / "docker", setting.wheels(*PACKAGES, MORE)
    (context / "wheels").mkdir(parents=True)
    for wheel in wheels:
        shutil.copy(setting.cache.blobs.path(wheel.digest), context / "wheels" / wheel.filename)
    (pip,) = (each for each in setting.wheels("pip") if each.name == "pip")
    Fetcher(str(setting.folder), setting.cache.blobs, setting.counters).fetch([pip])
    shutil.copy(setting.cache.blobs.path(pip.digest), context / "wheels" / "pip.whl")
    few = {wheel.name for wheel in setting.wheels(*PACKAGES)}
    names = [f"{wheel.name}=={wheel.version}" for wheel in wheels]
    (context / "few").write_text(
        "\n".join(name for name in names if name.partition("==")[0] in few)
    )
    base = setting.base.reference
    theirs, ours = [], []
    for at in range(ROUNDS):  # Each with a text that Docker has never seen.
        subprocess.run(
            ["docker", "build", "--quiet", "--file", "-", "."],
            cwd=context,
            **_dockerfile(base, "few"),
        )
        (context / f"more{at}").write_text("\n".join([*names, f"# {uuid.uuid4().hex}"]))
        command, options = (
            ["docker", "build", "--quiet", "--file", "-", "."],
            _dockerfile(base, f"more{at}"),
        )
        theirs.append(seconds(partial(subprocess.run, command, cwd=context, **options)))
        ours.append(_added(setting, at))
    benchmark.pedantic(lambda: None)
    one, other = statistics.median(seconds for seconds, _ in ours), statistics.median(theirs)
    sent = max(sent for _, sent in ours)
    benchmark.extra_info["ratio"] = other / one
    detail = f"{other:.2f} s to {one:.2f} s; {sent / 1e3:.0f} kB sent"
    report("docker build to ours, one package more", other / one, "at least 5", detail)


def _dockerfile(base: str, requirements: str) -> dict[str, Any]:
    text = DOCKERFILE.format(base=base, requirements=requirements)
    return {
        "input": text,
        "text": True,
        "check": True,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }


def _added(setting: Setting, at: int) -> tuple[float, int]:
    """Return the seconds and sent bytes of a command that pushes an image with one more package."""
    import json

    place = setting.registry.repository(f"bench/{uuid.uuid4().hex}")
    home = setting.folder / f"home{at}"
    environment = {
        **os.environ,
        "FLYTE_HOME": str(home),
        "FLYTE_IMAGE_BASE": setting.base.reference,
    }
    command = [FLYTE, "-of", "json", "build", "--push", "--registry", place, "bench.py"]
    shutil.copytree(setting.folder.parent / "home", home)

    def build(*packages: str) -> int:
        (setting.folder / "bench.py").write_text(
            FILE.format(packages=", ".join(map(repr, packages)))
        )
        done = subprocess.run(
            command, cwd=setting.folder, env=environment, check=True, capture_output=True
        )
        return int(json.loads(done.stdout)["counters"]["bytes_sent"])

    build(*PACKAGES)
    sent = 0

    def added() -> None:
        nonlocal sent
        sent = build(*PACKAGES, MORE)

    taken = seconds(added)
    forget(home)
    return taken, sent


def test_composing(benchmark: BenchmarkFixture, setting: Setting, tmp_path: Path) -> None:
    """An image and a bundle are composed, and pushed to a registry that has the layers of both."""
    name = setting.registry.repository(f"bench/{uuid.uuid4().hex}")
    repository = open_repository(RepositoryName.parse(name), setting.counters, RetryBudget())
    image = setting.build(*PACKAGES).image
    base = open_repository(
        RepositoryName.parse(setting.base.reference.rpartition(":")[0]), Counters(), RetryBudget()
    )
    publisher = ImagePublisher(repository, setting.cache, [base])
    publisher.push(image)
    times = []
    for at in range(10):
        write_files(tmp_path / f"project{at}", {"a.py": os.urandom(1 << 20), "b.py": b"%d" % at})
        bundle = OciImage.read(
            make_bundle(setting.cache, tmp_path / f"project{at}").manifest, setting.cache.blobs
        )
        Transfer(setting.cache.blobs, Ledger(setting.cache.database)).push(
            bundle.manifest, repository
        )
        times.append(
            seconds(
                lambda at=at, bundle=bundle: publisher.push(
                    compose(image, [bundle]), f"composed-{at}"
                )
            )
        )  # type: ignore[misc]  # No lambda with a default is inferred.
    benchmark.pedantic(lambda: None)
    report(
        "composing with its pushes, ms",
        1000 * statistics.median(times),
        "at most 100",
        "a config and a manifest are sent",
    )


def test_a_warm_run_in_a_container(
    benchmark: BenchmarkFixture, setting: Setting, tmp_path: Path
) -> None:
    """A warm run in a container is compared to `docker run --rm` of an empty program.

    The image is the same, and the time is that of the whole command.
    """
    with docker_engine() as host:
        project = tmp_path / "project"
        project.mkdir()
        (project / "hello.py").write_text(HELLO)
        environment = {
            **os.environ,
            "DOCKER_HOST": host,
            "FLYTE_HOME": str(tmp_path / "home"),
            "FLYTE_IMAGE_BASE": setting.base.reference,
        }
        run = [FLYTE, "run", "--engine", "docker", "hello.py", "hello"]
        subprocess.run(run, cwd=project, env=environment, check=True, capture_output=True)
        built = subprocess.run(
            [FLYTE, "-of", "json", *run[1:]],
            cwd=project,
            env=environment,
            check=True,
            capture_output=True,
        )
        (manifest,) = (
            node["digest"]
            for node in json.loads(built.stdout)["prepared"]
            if node["kind"] == "image"
        )
        blobs = next((tmp_path / "home").rglob("blobs/sha256"))
        image = json.loads((blobs / manifest.removeprefix("sha256:")).read_bytes())["config"][
            "digest"
        ]
        plain = ["docker", "run", "--rm", image, "python3", "-c", "pass"]
        quiet: dict[str, Any] = {"env": environment, "check": True, "capture_output": True}
        ours, theirs = paired(
            lambda: subprocess.run(run, cwd=project, **quiet),
            lambda: subprocess.run(plain, **quiet),
            7,
        )
    benchmark.pedantic(lambda: None)
    benchmark.extra_info["ratio"] = ours / theirs
    report(
        "warm run in a container to docker run",
        ours / theirs,
        "at most 1.5",
        f"{1000 * ours:.0f} ms to {1000 * theirs:.0f} ms",
    )
