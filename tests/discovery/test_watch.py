"""Traces of an import: a file is imported again if anything that its import used has changed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flyte_build.errors import FlyteError
from tests.support.caches import Recorder, planned
from tests.support.files import write_files

FLOW = """
import os, pathlib, shutil, sys
import flyte
HERE = pathlib.Path(__file__).parent
{code}
env = flyte.TaskEnvironment("seen")

@env.task
def job(value: str = str(VALUE).replace(str(HERE), "HERE")) -> str:
    return value
"""


@dataclass
class Seen:
    """Result of discovery: a task's default, whether and why the file was imported, and notes."""

    value: str
    imported: bool
    why: str
    said: list[str] = field(default_factory=list)


def discover(root: Path, home: Path) -> Seen:
    reporter = Recorder()
    with planned(home, f"{root}/flow.py", "loaded_modules", reporter=reporter) as plan:
        try:
            findings = plan.discover().findings
        except FlyteError as error:
            return Seen(error.what + error.why, True, "")
        (outcome,) = plan.outcomes
        return Seen(
            findings.tasks["job"].interface.inputs[0].default,
            outcome.state == "made",
            outcome.why,
            reporter.notes,
        )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path.resolve() / "project"
    write_files(
        root, {"a.txt": b"one", "b.txt": b"two!", "data/x.csv": b"x", "tool": b"#!/bin/sh\n"}
    )
    (root / "link").symlink_to("a.txt")
    (root / "folder").symlink_to("data")
    monkeypatch.chdir(root)
    return root


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def make_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("now a file")


READ = "VALUE = file.read()"
Edit = Callable[[Path, pytest.MonkeyPatch], object]
CASES: dict[str, tuple[str, Edit]] = {
    "a listed directory that appears, empty": (
        "try:\n    VALUE = os.listdir(HERE / 'new')\nexcept OSError:\n    VALUE = 'none'",
        lambda root, _: (root / "new").mkdir(),
    ),
    "a scanned directory that appears": (
        (
            "try:\n    VALUE = [each.name for each in os.scandir(HERE / 'new')]\nexcept OSError:\n "
            "   VALUE = 'none'"
        ),
        lambda root, _: (root / "new").mkdir(),
    ),
    "a glob's directory that appears": (
        "VALUE = sorted(HERE.glob('new/*.txt'))",
        lambda root, _: write_files(root, {"new/a.txt": b""}),
    ),
    "a name that was a file and is a directory": (
        "VALUE = [each.name for each in os.scandir(HERE) if each.is_dir()]",
        lambda root, _: ((root / "b.txt").unlink(), (root / "b.txt").mkdir()),
    ),
    "open() of what is a folder": (
        (
            "try:\n    VALUE = open(HERE / 'data').read()\nexcept OSError as e:\n    VALUE ="
            " type(e).__name__"
        ),
        lambda root, _: make_file(root / "data"),
    ),
    "open() of what is not there": (
        (
            "try:\n    VALUE = open(HERE / 'later').read()\nexcept OSError as e:\n    VALUE ="
            " type(e).__name__"
        ),
        lambda root, _: (root / "later").write_text("here"),
    ),
    "a relative file": (
        "VALUE = open('a.txt').read()",
        lambda root, patch: other_folder(root, patch),
    ),
    "the current directory": ("VALUE = os.getcwd()", lambda root, patch: other_folder(root, patch)),
    "the current folder, by pathlib": (
        "VALUE = pathlib.Path('a.txt').absolute()",
        lambda root, patch: other_folder(root, patch),
    ),
    "a relative path that is asked about": (
        "VALUE = os.path.exists('only')",
        lambda root, patch: other_folder(root, patch),
    ),
    "a module of the current directory": (
        "try:\n    from only import VALUE\nexcept ImportError:\n    VALUE = 0",
        lambda root, p: other_folder(root, p),
    ),
    "resolve()": (
        "VALUE = (HERE / 'link').resolve()",
        lambda root, _: relink(root / "link", "b.txt"),
    ),
    "realpath of a directory": (
        "VALUE = os.path.realpath(HERE / 'folder/x.csv')",
        lambda root, _: relink(root / "folder", "other"),
    ),
    "readlink": (
        "VALUE = os.readlink(HERE / 'link')",
        lambda root, _: relink(root / "link", "./a.txt"),
    ),
    "islink": (
        "VALUE = os.path.islink(HERE / 'a.txt')",
        lambda root, _: ((root / "a.txt").rename(root / "c"), (root / "a.txt").symlink_to("c")),
    ),
    "lstat": (
        "VALUE = os.lstat(HERE / 'link').st_size",
        lambda root, _: relink(root / "link", "././a.txt"),
    ),
    "a dangling link": (
        "VALUE = os.path.lexists(HERE / 'new')",
        lambda root, _: (root / "new").symlink_to("nowhere"),
    ),
    "a file opened r+": (
        f"with open(HERE / 'a.txt', 'r+') as file: {READ}",
        lambda root, _: (root / "a.txt").write_text("edited"),
    ),
    "a file opened a+": (
        f"with open(HERE / 'a.txt', 'a+') as file: file.seek(0); {READ}",
        lambda root, _: (root / "a.txt").write_text("edited"),
    ),
    "a file opened O_RDWR": (
        "VALUE = os.read(os.open(HERE / 'a.txt', os.O_RDWR), 99)",
        lambda root, _: (root / "a.txt").write_text("edited"),
    ),
    "os.access after a chmod": (
        "VALUE = os.stat(HERE / 'tool').st_mode & 0o777",
        lambda root, _: (root / "tool").chmod(0o755),
    ),
    "which() after a chmod": (
        "VALUE = shutil.which('tool', path=str(HERE))",
        lambda root, _: (root / "tool").chmod(0o755),
    ),
    "getmtime": (
        "VALUE = os.path.getmtime(HERE / 'a.txt')",
        lambda root, _: os.utime(root / "a.txt", (1, 1)),
    ),
    "SHLVL": ("VALUE = os.environ.get('SHLVL')", lambda _, patch: patch.setenv("SHLVL", "77")),
    "OLDPWD": ("VALUE = os.getenv('OLDPWD')", lambda _, patch: patch.setenv("OLDPWD", "/seen")),
    "_": ("VALUE = os.environ.get('_')", lambda _, patch: patch.setenv("_", "/bin/seen")),
    "all variables": (
        "VALUE = dict(os.environ).get('FLYTE_SEEN')",
        lambda _, patch: patch.setenv("FLYTE_SEEN", "1"),
    ),
    "the number of variables": (
        "VALUE = len(os.environ)",
        lambda _, patch: patch.setenv("FLYTE_SEEN", "1"),
    ),
    "a variable as bytes": (
        "VALUE = os.environb.get(b'FLYTE_SEEN')",
        lambda _, patch: patch.setenv("FLYTE_SEEN", "1"),
    ),
    "a path outside of the root": (
        "VALUE = (HERE.parent / 'outside').exists()",
        lambda root, _: (root.parent / "outside").mkdir(),
    ),
}


def other_folder(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(
        write_files(
            root.parent / "elsewhere",
            {"a.txt": b"elsewhere", "only.py": b"VALUE = 1\n", "only": b""},
        )
    )


@pytest.mark.parametrize("name", CASES)
def test_what_an_import_looked_at_counts(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A change of anything that the import used is a miss, with the value of a clean import.

    Without a change it is a hit, and so it is with the change undone.
    """
    code, edit = CASES[name]
    (root / "flow.py").write_text(FLOW.format(code=code))
    write_files(root, {"other/x.csv": b"other"})
    before = discover(root, tmp_path / "warm")
    assert before.imported and before.why == "first time" and before.said == []
    again = discover(root, tmp_path / "warm")
    assert not again.imported and again.value == before.value
    edit(root, monkeypatch)
    after, clean = discover(root, tmp_path / "warm"), discover(root, tmp_path / "clean")
    assert after.value == clean.value != before.value
    assert after.imported and after.why not in ("", "first time")
    assert not discover(root, tmp_path / "warm").imported


CLOCKS = {
    "strftime": "import time; VALUE = time.strftime('%S')",
    "clock_gettime": "import time; VALUE = time.clock_gettime(time.CLOCK_REALTIME)",
    "monotonic": "from time import monotonic_ns; VALUE = monotonic_ns()",
    "getrandom": "VALUE = os.getrandom(4)",
    "a thread": (
        "import threading, time\nfound = []\nthread = threading.Thread(target=lambda:"
        " found.append(time.time()))\nthread.start(); thread.join(); VALUE = found"
    ),
    "a thread and a method": (
        "import threading, datetime\nfound = []\ndef look():"
        " found.append(datetime.datetime.now())\nthread ="
        " threading.Thread(target=look)\nthread.start(); thread.join(); VALUE = found"
    ),
    "a factory": "import collections, time; VALUE = collections.defaultdict(time.time)['x']",
    "now": "import datetime; VALUE = datetime.datetime.now()",
    "uuid1": "import uuid; VALUE = uuid.uuid1()",
    "urandom": "VALUE = os.urandom(2)",
}


@pytest.mark.parametrize("name", CLOCKS)
def test_clocks_make_an_import_volatile(root: Path, tmp_path: Path, name: str) -> None:
    """An import that reads a clock is repeated each time, and the line is named."""
    (root / "flow.py").write_text(FLOW.format(code=CLOCKS[name]))
    for _ in range(2):
        seen = discover(root, tmp_path / "warm")
        assert (
            seen.imported
            and "clock or random numbers" in seen.said[0]
            and "flow.py:" in seen.said[0]
        )


def test_what_is_no_clock_is_repeatable(root: Path, tmp_path: Path) -> None:
    """A given moment is not a clock, and installed packages may read clocks at their import."""
    code = (
        "import time, logging, uuid, tempfile, multiprocessing, asyncio; VALUE ="
        " time.strftime('%S', time.gmtime(0)) + time.ctime(5)"
    )
    (root / "flow.py").write_text(FLOW.format(code=code))
    assert (
        discover(root, tmp_path / "warm").said == []
        and not discover(root, tmp_path / "warm").imported
    )


METADATA = """
import importlib.metadata
VALUE = len(importlib.metadata.entry_points(group="none")) + 0 * len(list(importlib.metadata.distributions()))
"""


def test_a_new_file_is_not_looked_at_for_the_sake_of_metadata(root: Path, tmp_path: Path) -> None:
    """A new file does not repeat an import, though `importlib.metadata` lists its directory.

    Only a new distribution does.
    """
    (root / "flow.py").write_text(FLOW.format(code=METADATA))
    discover(root, tmp_path / "warm")
    (root / "flyte.lock").write_text("version = 1\n")
    (root / "new.py").write_text("")
    assert not discover(root, tmp_path / "warm").imported
    write_files(root, {"mine-1.0.dist-info/METADATA": b"Name: mine\nVersion: 1.0\n"})
    assert discover(root, tmp_path / "warm").why == f"the installed packages in {root} changed"


def test_an_unrelated_package_that_comes_and_goes_loses_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an unrelated package has come and gone, the earlier result is valid again."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "libs"))
    write_files(tmp_path / "libs", {"some.py": b""})
    (root / "flow.py").write_text(FLOW.format(code="VALUE = 1"))
    assert discover(root, tmp_path / "warm").imported
    write_files(tmp_path / "libs", {"mine-1.0.dist-info/METADATA": b"Name: mine\n"})
    assert "the installed packages" in discover(root, tmp_path / "warm").why
    shutil.rmtree(tmp_path / "libs/mine-1.0.dist-info")
    assert not discover(root, tmp_path / "warm").imported


def test_a_file_of_the_future_is_not_being_changed(root: Path, tmp_path: Path) -> None:
    """A file with a future time is not taken for one that is being written."""
    (root / "flow.py").write_text(FLOW.format(code="import helper; VALUE = helper.VALUE"))
    (root / "helper.py").write_text("VALUE = 1\n")
    os.utime(root / "helper.py", (time.time() + 1e6, time.time() + 1e6))
    time.sleep(0.03)
    assert discover(root, tmp_path / "warm").said == []
    assert not discover(root, tmp_path / "warm").imported


def test_why_a_file_that_is_known_is_imported_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason for a repeated import is what changed, and never `first time`."""
    (root / "flow.py").write_text(FLOW.format(code="VALUE = 1"))
    discover(root, tmp_path / "warm")
    (root / "src").mkdir()
    assert discover(root, tmp_path / "warm").why == "the import roots changed"
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    assert (
        discover(root, tmp_path / "warm").why == "the environment variable PYTHONOPTIMIZE changed"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "the directories in PYTHONPATH changed" in discover(root, tmp_path / "warm").why


def test_no_value_of_a_variable_is_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file of the store holds the value of a variable that an import read."""
    monkeypatch.setenv("SEEN_TOKEN", "hunter2-of-mine")
    (root / "flow.py").write_text(
        FLOW.format(
            code="TOKEN = os.environ['SEEN_TOKEN']; ALL = dict(os.environ); VALUE = len(TOKEN)"
        )
    )
    assert discover(root, tmp_path / "warm").value == "15"
    files: list[Any] = [path for path in (tmp_path / "warm").rglob("*") if path.is_file()]
    assert files and not any(b"hunter2-of-mine" in path.read_bytes() for path in files)
