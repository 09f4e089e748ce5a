"""What the tests of the store and of bundles share: caches, trees of real files, and other
processes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, settings

from flyte_build.bundler import bundle, packs
from flyte_build.bundler.scan import Scanner, ScanOptions
from flyte_build.bundler.snapshot import Scan
from flyte_build.bundler.tree import Entry, Tree
from flyte_build.cas import tar
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import key
from flyte_build.cas.layer import Layer
from flyte_build.cas.records import Record
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.runner.reporter import RunReporter
from flyte_build.settings.configuration import Configuration
from flyte_build.settings.places import Places
from flyte_build.settings.settings import Settings
from flyte_build.workspace.workspace import Workspace
from tests.command import TASKS, Shell
from tests.engines import Engine, docker_engine
from tests.registries import Server, serve

settings.register_profile(
    "flyte",
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="CI" in os.environ,
    database=None,
)
settings.load_profile("flyte")

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="mounting needs root")


class Link(bytes):
    """In a description of files: a link to this target."""


class Executable(bytes):
    """In a description of files: an executable file of these bytes."""


Files = Mapping[str | bytes, bytes]


def write_files(root: str | Path, files: Files) -> str:
    """Make these files and links below `root`, and give `root`."""
    os.makedirs(root, exist_ok=True)
    for name, content in files.items():
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if isinstance(content, Link):
            os.symlink(bytes(content), path)
            continue
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o755 if isinstance(content, Executable) else 0o644)
    return os.fspath(root)


def read_files(root: str | Path) -> dict[bytes, bytes]:
    """What `write_files` would need to make what is below `root`."""
    found: dict[bytes, bytes] = {}
    top = os.fsencode(root)
    for here, folders, names in os.walk(top):
        for name in names + [name for name in folders if os.path.islink(os.path.join(here, name))]:
            path = os.path.join(here, name)
            if os.path.islink(path):
                content: bytes = Link(os.readlink(path))
            else:
                with open(path, "rb") as file:
                    content = file.read()
                if os.stat(path).st_mode & 0o100:
                    content = Executable(content)
            found[os.path.relpath(path, top)] = content
    return found


def entries_of(files: Files) -> list[Entry]:
    """The entries of the tree that these files make."""
    return [
        (
            Entry(os.fsencode(name), "l", len(content), bytes(content))
            if isinstance(content, Link)
            else Entry(
                os.fsencode(name),
                "x" if isinstance(content, Executable) else "f",
                len(content),
                Digest.of(content).hex.encode(),
            )
        )
        for name, content in files.items()
    ]


def same(one: Files, other: Files) -> bool:
    """Whether these are the same paths, kinds, modes and contents."""
    return set(entries_of(one)) == set(entries_of(other))


@contextmanager
def opened(
    folder: str | Path, said: Callable[[str], None] | None = None, counters: Counters | None = None
) -> Iterator[Cache]:
    """An open cache, closed at the end. Unless `said` is given, nothing may be said."""

    def nothing(sentence: str) -> None:
        raise AssertionError(sentence)

    cache = Cache.open(os.fspath(folder), counters or Counters(), said or nothing)
    try:
        yield cache
    finally:
        cache.database.close()


class Recorder(RunReporter):
    """Remembers what the user should know, and passes nothing on."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        """Remember a sentence."""
        self.notes.append(sentence)

    def output(self, stream: int, data: bytes, seconds: float) -> int:
        """Shown to nobody."""
        return len(data)


@contextmanager
def planned(
    cache: str | Path,
    file: str,
    style: str,
    counters: Counters | None = None,
    reporter: Recorder | None = None,
    **given: object,
) -> Iterator[FilePlan]:
    """The plan of a file, which is at the root of its project, over a cache in that directory; what is
    `given` are settings.
    """
    places = Places(cache=os.fspath(cache), data=f"{cache}-data", config="")
    stores = Stores(reporter or Recorder(), places, counters)
    settings = Settings.configured(Configuration({}), copy_style=style, **given)
    root, name = os.path.split(file)
    try:
        yield FilePlan(Session(settings, stores), Workspace.of(root, name))
    finally:
        stores.close()


def scan(cache: Cache, root: str | Path, **options: object) -> tuple[Scan, Counters]:
    """A scan of all below `root`, and what it took."""
    counters = Counters()
    return (
        Scanner(os.fspath(root), cache.index, counters, ScanOptions(**options)).scan_all(),
        counters,
    )  # type: ignore[arg-type]  # Each test gives its own.


def tree_of(cache: Cache, root: str | Path, **options: object) -> Tree:
    """The tree of all below `root`."""
    return Tree(scan(cache, root, **options)[0].entries())


def cut(tree: Tree) -> list[list[Entry]]:
    """The entries of each pack of a tree."""
    return [[tree.entries[at] for at in part] for part in packs.cut(tree.sizes())]


def make_bundle(cache: Cache, root: str | Path, label: str = "bundle:project") -> bundle.Bundle:
    """Scan, pack and record a bundle as preparing does, under the cache's lock."""
    with cache.preparing():
        found, counters = scan(cache, root)
        tree = Tree(found.entries())
        packer = packs.Packer(f"{os.fspath(root)}/".__add__, found.contents, counters)
        with cache.blobs.batch() as batch:
            layers = [packer.pack(part, batch) for part in cut(tree)]
            made = bundle.write(tree, layers, batch)
        record_bundle(cache, made, label)
    return made


def record_bundle(cache: Cache, made: bundle.Bundle, label: str = "bundle:project") -> Record:
    """Record a bundle that is in the store."""
    record = Record(
        key("bundle", 1, {"tree": made.tree}),
        "bundle",
        made.manifest,
        (*made.blobs(), made.tree),
        {"tree": made.tree},
    )
    cache.records.add(record)
    cache.records.set_last(label, record.key)
    return record


def record_blob(cache: Cache, name: str, *refs: Digest) -> Record:
    """Record that `name` needs these blobs."""
    record = Record(key("test", 1, {"name": name}), "test", refs[0], refs, {"name": name})
    cache.records.add(record)
    return record


def layer(cache: Cache, data: bytes, compress: bool = True) -> Layer:
    """A layer of exactly these bytes (a tar's, or anything)."""
    blob = zstandard.ZstdCompressor(level=1).compress(data) if compress else data
    return Layer(cache.blobs.put(blob), len(blob), Digest.of(data))


def archive(files: Files) -> bytes:
    """The tar that a pack of these files should be."""
    return (
        b"".join(
            map(member, sorted((os.fsencode(name), content) for name, content in files.items()))
        )
        + tar.END
    )


def member(item: tuple[bytes, bytes]) -> bytes:
    """One file or link in a pack."""
    name, content = item
    if isinstance(content, Link):
        return tar.header(tar.Member(packs.CODE + name, 0, target=bytes(content)))
    head = tar.header(tar.Member(packs.CODE + name, len(content), isinstance(content, Executable)))
    return head + bytes(content) + tar.padding(len(content))


def process(code: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    """Start Python code in another process; its output is to be read."""
    settings = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        **options,
    }
    return subprocess.Popen([sys.executable, "-c", code, *arguments], **settings)  # type: ignore[call-overload,no-any-return]  # Options are the caller's.


def run(code: str, *arguments: str, **options: object) -> str:
    """Run Python code in another process, and give what it printed."""
    with process(code, *arguments, **options) as started:
        out, errors = started.communicate(timeout=100)
    assert started.returncode == 0, errors
    return out.strip()


@contextmanager
def mounted(where: str | Path, options: str) -> Iterator[str]:
    """A file system in memory with these mount options."""
    os.makedirs(where, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", where], check=True)
    try:
        yield os.fspath(where)
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def flip(path: str | Path, at: int = -1) -> None:
    """Change one bit of a file, also of one that is protected."""
    data = bytearray(Path(path).read_bytes())
    data[at] ^= 1
    overwrite(path, bytes(data))


def overwrite(path: str | Path, data: bytes) -> None:
    """Replace a file's bytes in place, also of one that is protected, when the clock of file
    systems has moved on.
    """
    mode = os.stat(path).st_mode
    clock_moves(os.path.dirname(path))
    os.chmod(path, 0o644)
    Path(path).write_bytes(data)
    os.chmod(path, mode)


def clock_moves(folder: str | Path) -> None:
    """Return when a file that changes now gets another time than one that changed
    before this call.
    """
    with tempfile.NamedTemporaryFile(dir=folder if ROOT else None) as probe:
        first = os.stat(probe.name).st_ctime_ns
        while os.stat(probe.name).st_ctime_ns < first + 25_000_000:
            os.utime(probe.name)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """A cache that is empty; nothing may be said."""
    with opened(tmp_path / "cache") as cache:
        yield cache


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty directory for a project."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@contextmanager
def temporary() -> Iterator[Path]:
    """A directory for one example of a property."""
    folder = tempfile.mkdtemp(prefix="flyte-test-")
    try:
        yield Path(folder)
    finally:
        for here, _, _ in os.walk(folder):
            os.chmod(here, 0o700)
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test meets the user's own store."""
    monkeypatch.setenv("FLYTE_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def flyte(tmp_path: Path) -> Iterator[Shell]:
    """A project with a file of tasks."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "tasks.py").write_text(TASKS)
    yield Shell(project, tmp_path / "home")
    for folder, _, _ in os.walk(tmp_path / "home"):
        os.chmod(folder, 0o700)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry that wants no login, for all tests together."""
    with serve(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker Engine, for all tests together."""
    with docker_engine() as host:
        yield Engine(host)


@pytest.fixture
def repository(registry: Server) -> str:
    """A repository of that registry which no other test uses."""
    return registry.repository(f"test/{uuid.uuid4().hex}")
