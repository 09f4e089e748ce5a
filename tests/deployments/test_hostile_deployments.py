"""Documents of deployments may hold anything: commands fail clearly or give the right result."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from flyte_build.cli.main import run_command
from tests.support.command import Shell
from tests.support.forgery import ESCAPES
from tests.support.layouts import Layout

TASKS = '''
import dataclasses
import flyte

@dataclasses.dataclass
class Point:
    x: int = 1
    y: list[str] = dataclasses.field(default_factory=list)

env = flyte.TaskEnvironment(name="t", env_vars={"A": "b"}, description="d", resources=flyte.Resources(cpu=1, memory="1Gi"))

@env.task(retries=2, timeout=30, cache="auto")
def hello(name: str = "World", n: int | None = None, p: Point = Point()) -> tuple[str, int]:
    """Greet."""
    return f"Hello, {name}!", 1
'''
VALUES: list[Any] = [
    None,
    True,
    7,
    -1,
    1e999,
    10**400,
    "",
    "x",
    "a\0b",
    "\ud800",
    ESCAPES,
    "../../..",
    [],
    ["x"],
    [[]],
    {},
    {"x": "y"},
    {"": 1},
]
GONE = object()
NAME_DEFAULT = ("tasks", "hello", "interface", "inputs", 0, "default")
TAG = "default.development.t.v2"
_STEP = 11  # Every eleventh mutation is for each test run.


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two versions of a deployment, one of which is to be forged."""
    folder = tmp_path_factory.mktemp("deployed")
    (folder / "project").mkdir()
    (folder / "project" / "tasks.py").write_text(TASKS)
    author = Shell(folder / "project", folder / "home")
    for version in ("v1", "v2"):
        author("deploy", "--registry", f"oci:{folder}/shared", "--version", version, "tasks.py")
    return folder / "shared"


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a JSON value."""
    for step, below in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield (*above, step)
        yield from paths(below, (*above, step))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a JSON value with another one at a path, or without it."""
    value = inner = deepcopy(value)
    for step in path[:-1]:
        inner = inner[step]
    if new is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


class Release:
    """The release of v2 in a copy of a directory; parts are replaced so that all digests fit."""

    def __init__(self, good: Path, folder: Path) -> None:
        self.layout = Layout(shutil.copytree(good, folder))
        self.index = self._read(self.layout.entries()[TAG]["digest"])
        self.manifest = self._read(self.index["manifests"][0]["digest"])
        self.document = self._read(self.manifest["layers"][0]["digest"])

    def _read(self, digest: str) -> Any:
        return json.loads(self.layout.blob(digest).read_bytes())

    def _put(self, data: bytes) -> dict[str, Any]:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.layout.blob(digest).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    def publish(self, **parts: Any) -> None:
        """Publish the release with these JSON values as `document`, `manifest` and `index`."""
        document = parts.get("document", self.document)
        data = (
            document
            if isinstance(document, bytes)
            else json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        )
        manifest = deepcopy(self.manifest)
        manifest["layers"][0] |= self._put(data)
        manifest = parts.get("manifest", manifest)
        index = deepcopy(self.index)
        index["manifests"][0] |= self._put(
            json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        )
        entries = self.layout.entries()
        entries[TAG] |= self._put(json.dumps(parts.get("index", index)).encode())
        self.layout.write(entries)


COMMANDS = (
    ("run", "deployed-task", "t.hello:v2"),
    ("run", "deployed-task", "t.hello:v2", "--help"),
    ("diff", "t:v1", "t:v2"),
    ("get", "deployment", "t"),
    ("get", "task", "t.hello:v2"),
    ("doctor",),
)


PARTS = [
    pytest.param(which, part, marks=() if part == 0 else (pytest.mark.slow,), id=f"{which}-{part}")
    for which in ("document", "manifest", "index")
    for part in range(_STEP)
]


@pytest.mark.slow
@pytest.mark.parametrize("which, part", PARTS)
def test_mutations(
    deployed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    which: str,
    part: int,
) -> None:
    """Any change in the document, the manifest or the index is an error or harmless.

    Each value is removed, or replaced by each of many others.
    """
    release = Release(deployed, tmp_path / "shared")
    good = getattr(release, which)
    monkeypatch.setenv("FLYTE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLYTE_REGISTRY", f"oci:{tmp_path}/shared")
    every = [(path, new) for path in paths(good) for new in (GONE, *VALUES)]
    assert len(every) > 100
    for number, (path, new) in list(enumerate(every))[part::_STEP]:
        release.publish(**{which: changed(good, path, new)})
        for command in COMMANDS if number % 3 == 0 else COMMANDS[:1]:
            code = run_command(list(command), None)
            out, errors = capfd.readouterr()
            told = f"{path} = {new!r:.50}: {command}: {code}\n{out}{errors}"
            # A task's own is one.
            assert code in (0, 1, 2, 3, 4) and (code == 1 or "Traceback" not in out + errors), told
            assert "\x1b" not in errors and "\x07" not in errors, told
            greeted = "World"
            if (
                command == COMMANDS[0]
                and path == NAME_DEFAULT
                and (new is None or isinstance(new, str))
            ):
                # A default is what the document says.
                greeted = str(new).encode(errors="backslashreplace").decode()
            else:
                assert "\x1b" not in out and "\x07" not in out, told
            if code == 0 and command == COMMANDS[0]:
                assert f"Hello, {greeted}!" in out, told


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"format": 1' + b"0" * 5000 + b"}",
        b"[]",
        b"null",
        b'{"format": 2}',
        b'{"format": NaN}',
    ],
)
def test_documents_that_are_none(deployed: Path, tmp_path: Path, data: bytes) -> None:
    """A document that is malformed is refused with exit code 3 and a hint."""
    Release(deployed, tmp_path / "shared").publish(document=data)
    machine = Shell(tmp_path, tmp_path / "home")
    done = machine(
        "run", "--registry", f"oci:{tmp_path}/shared", "deployed-task", "t.hello:v2", exit_code=3
    )
    assert "malformed" in done.stderr or "newer version" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"by": 1}',
        b'{"ended": "x", "by": "y", "error": null}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_state_files_that_are_malformed(flyte: Shell, content: bytes) -> None:
    """Malformed state files are ignored: they are trusted no more than remote documents."""
    flyte("run", "tasks.py", "hello")
    (flyte.home / "cache" / "v1" / "collected.json").write_bytes(content)
    assert flyte.json("cache", "stats")["collected"] is None
    (extraction,) = (flyte.home / "cache" / "v1" / "extractions").iterdir()
    os.chmod(extraction / "complete", 0o644)
    (extraction / "complete").write_bytes(content)
    assert flyte("run", "tasks.py", "hello").stdout == "Hello, World!\n"
