"""The store and the history are the user's alone, whatever the umask.

What containers read stays readable for any user in them.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyte_build.images.layers import runtime
from tests.support.caches import opened
from tests.support.command import FLYTE, Shell
from tests.support.processes import run


def masked(flyte: Shell, umask: str, *args: str, **env: str) -> str:
    """Return the standard output of the command, started with a umask."""
    command = f"umask {umask}; exec {shlex.join([FLYTE, *args])}"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=flyte.project,
        env={**flyte.environment, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def modes(folder: Path, without: tuple[str, ...] = ()) -> Iterator[tuple[str, int]]:
    """Yield each file and directory at and below `folder` with its permissions.

    Nothing inside of the directories `without` is listed.
    """
    for here, folders, files in os.walk(folder):
        yield here, stat.S_IMODE(os.stat(here).st_mode)
        if os.path.basename(os.path.dirname(here)) in without:
            folders.clear()
            continue
        for name in files:
            path = f"{here}/{name}"
            if not os.path.islink(path):
                yield path, stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_nobody_else_reads_the_store(flyte: Shell, umask: str) -> None:
    """All files and directories of the cache and of the history are closed to others.

    Extractions are below a closed directory.
    """
    for args in (
        ("run", "tasks.py", "hello"),
        ("run", "--local", "tasks.py", "hello"),
        ("run", "hello"),
        ("cache", "gc"),
        ("get", "run"),
    ):
        masked(flyte, umask, *args)
    found = dict(modes(flyte.home, without=("extractions",)))
    assert (
        len(found) > 30 and {path: oct(mode) for path, mode in found.items() if mode & 0o077} == {}
    )
    assert all(mode & 0o700 == 0o700 for path, mode in found.items() if os.path.isdir(path))


@pytest.mark.parametrize("umask", ["000", "077"])
def test_what_is_mounted_into_containers_is_readable_for_all(
    flyte: Shell, tmp_path: Path, umask: str
) -> None:
    """Any user of a container can read code and runtime, whatever the umask.

    The directories above them are closed.
    """
    masked(flyte, umask, "run", "tasks.py", "hello")
    (code,) = (flyte.home / "cache/v1/extractions").glob("[0-9a-f]*/code")
    text = f"""
import os, sys
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.images.layers import runtime
os.umask(0o{umask})
print(runtime.folder(Cache.open(sys.argv[1], Counters(), print)))
"""
    place = Path(run(text, str(tmp_path / "cache")).strip())
    for folder in (code, place):
        found = list(modes(folder))
        assert len(found) > 1 and all(
            mode & (0o555 if os.path.isdir(path) else 0o444) in (0o555, 0o444)
            for path, mode in found
        )
        assert not any(mode & 0o022 for _, mode in found)


def open_up(folder: Path) -> None:
    """Open everything below a directory to everyone, as older versions left it."""
    for here, _, files in os.walk(folder):
        os.chmod(here, stat.S_IMODE(os.stat(here).st_mode) | 0o055)
        for name in files:
            if not os.path.islink(f"{here}/{name}"):
                os.chmod(f"{here}/{name}", stat.S_IMODE(os.stat(f"{here}/{name}").st_mode) | 0o044)


def test_a_store_of_an_older_version_is_closed_at_its_first_use(flyte: Shell) -> None:
    """Any command closes a store that an older version left open, databases included.

    Earlier runs are still found, and cached artifacts still count.
    """
    flyte("run", "tasks.py", "hello")
    open_up(flyte.home)
    assert len(flyte.json("get", "run")) == 1
    assert "made" not in flyte("run", "tasks.py", "hello").stderr
    for place in (
        "cache",
        "data",
        "cache/v1",
        "data/v1",
        "data/v1/runs",
        "cache/v1/cache.sqlite",
        "data/v1/history.sqlite",
    ):
        assert (flyte.home / place).stat().st_mode & 0o077 == 0, place


def test_a_store_that_several_share_keeps_its_modes(flyte: Shell) -> None:
    """In a shared store the umask decides on modes, and directories that are open stay open."""
    shared = {"FLYTE_STORE_SHARED": "true"}
    masked(flyte, "002", "run", "tasks.py", "hello", **shared)
    masked(flyte, "002", "run", "tasks.py", "hello", **shared)
    for place in (
        "cache",
        "cache/v1",
        "cache/v1/blobs/sha256",
        "cache/v1/leases",
        "data",
        "data/v1",
    ):
        assert stat.S_IMODE((flyte.home / place).stat().st_mode) == 0o775, place
    assert (flyte.home / "cache/v1/cache.sqlite").stat().st_mode & 0o040
    assert all(
        mode == 0o444
        for path, mode in modes(flyte.home / "cache/v1/blobs/sha256")
        if not os.path.isdir(path)
    )
    assert stat.S_IMODE((flyte.home / "data/v1/runs").stat().st_mode) == 0o700


def test_a_new_cache_is_the_users_alone(tmp_path: Path) -> None:
    """A new cache, and each new directory above it, is the user's alone; others stay unchanged."""
    (tmp_path / "open").mkdir(mode=0o755)
    with opened(tmp_path / "open/new/cache") as cache:
        cache.blobs.put(b"x")
        runtime.folder(cache)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o755
    found = {
        path: mode
        for path, mode in modes(tmp_path / "open/new", without=("runtimes",))
        if "/runtimes/" not in path
    }
    assert len(found) > 9 and not any(mode & 0o077 for mode in found.values())


# --- Where it all is


@pytest.mark.parametrize(
    "args",
    [("run", "tasks.py", "hello"), ("get", "run"), ("cache", "stats"), ("config",), ("lock",)],
)
def test_a_home_that_is_no_absolute_path_is_refused(flyte: Shell, args: tuple[str, ...]) -> None:
    """A home that is not an absolute path is refused, and nothing is written.

    It would be another directory for each place in which a command is started.
    """
    before = sorted(os.listdir(flyte.project))
    for home in (
        {"FLYTE_HOME": "", "HOME": "here"},
        {"HOME": "./here"},
        {"FLYTE_HOME": "~/x", "HOME": "here"},
        {"FLYTE_HOME": "", "HOME": ""},
    ):
        refused = flyte(*args, env=home, exit_code=2)
        assert (
            "HOME must be an absolute path" in refused.stderr
            and sorted(os.listdir(flyte.project)) == before
        )


def test_relative_xdg_folders_are_ignored(flyte: Shell) -> None:
    """Relative XDG directories are ignored, as the specification demands."""
    folders = {"XDG_CACHE_HOME": "c", "XDG_DATA_HOME": "./d", "XDG_CONFIG_HOME": "e"}
    before = sorted(os.listdir(flyte.project))
    flyte("run", "tasks.py", "hello", env={"FLYTE_HOME": "", **folders})
    assert (
        sorted(os.listdir(flyte.project)) == before
        and (flyte.home / ".cache/flyte-build/v1").is_dir()
    )


def test_a_relative_flyte_home_is_one_folder(flyte: Shell) -> None:
    """A relative `FLYTE_HOME` is resolved once, and used by the worker and the task as well."""
    flyte("run", "tasks.py", "hello", env={"FLYTE_HOME": "there"})
    assert sorted(os.listdir(flyte.project / "there")) == ["cache", "data"] and not list(
        flyte.project.rglob("there/*/there")
    )
