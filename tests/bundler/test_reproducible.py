"""Equal files give equal trees, packs and manifests, wherever, whenever and for whomever."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.files import Executable, Files, Link, as_root, temporary, write_files
from tests.support.processes import run

FILES: Files = {
    "a.py": b"import b\n",
    "caf\udce9.txt": b"not UTF-8",
    "grüße/ä ö.py": b"x = 1\n",
    "tool.sh": Executable(b"#!/bin/sh\n"),
    "pkg/__init__.py": b"",
    "pkg/data.bin": bytes(range(256)) * 40,
    "link": Link(b"pkg/data.bin"),
    ".gitignore": b"*.log\n",
    "x.log": b"ignored",
    "B.py": b"",
    "b.py": b"",
    "n" * 120 + ".py": b"long",
}
CODE = """
import os, sys, encodings.utf_8_sig, zstandard, pathspec, psutil
from pathlib import Path
from flyte_build.bundler import bundle, packs, tree
from flyte_build.workspace import ignore, sensitive
from tests.support.caches import make_bundle, opened
folder, umask, user = sys.argv[1:]
os.umask(int(umask, 8))
if user: os.setgid(int(user)); os.setuid(int(user))
with opened(folder + "/cache") as cache:
    made = make_bundle(cache, folder + "/project")
    print(made.tree, *made.blobs())
"""
HERE = str(CHECKOUT)


def bundled(
    folder: Path,
    umask: str = "022",
    user: str = "",
    environment: dict[str, str] | None = None,
    **options: Any,
) -> list[str]:
    """Return the digests of the tree and of all blobs of the bundle that another process makes."""
    environment = {**os.environ, "PYTHONPATH": HERE, **(environment or {})}
    return run(CODE, str(folder), umask, user, env=environment, **{"cwd": HERE, **options}).split()


@pytest.fixture(scope="module")
def expected() -> list[str]:
    """Return the digests that every bundle must have."""
    with temporary() as folder:
        write_files(folder / "project", FILES)
        return bundled(folder)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONHASHSEED": "0"},
        {"PYTHONHASHSEED": "4711"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8"},
        {"TZ": "Asia/Kathmandu"},
        {"TZ": "America/St_Johns"},
        {"HOME": "/nonexistent", "USER": "someone", "LOGNAME": "someone"},
        {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONOPTIMIZE": "0"},
        {"COLUMNS": "20", "NO_COLOR": "1", "CI": "1"},
        {"SOURCE_DATE_EPOCH": "12345"},
    ],
    ids=lambda environment: " ".join(environment.values()),
)
def test_the_environment_does_not_matter(expected: list[str], environment: dict[str, str]) -> None:
    """Hash seed, locale, time zone, home and user name do not change a bundle."""
    with temporary() as folder:
        write_files(folder / "project", FILES)
        assert bundled(folder, environment=environment) == expected


@pytest.mark.parametrize("umask", ["000", "027", "077"])
def test_the_umask_does_not_matter(expected: list[str], umask: str) -> None:
    """The umask changes no bundle, whether at the checkout or at the bundling."""
    with temporary() as folder:
        write_files(folder / "project", FILES)
        for here, _, names in os.walk(folder / "project"):
            for name in names:
                if not os.path.islink(f"{here}/{name}"):
                    os.chmod(
                        f"{here}/{name}", (0o777 if name == "tool.sh" else 0o666) & ~int(umask, 8)
                    )
        assert bundled(folder, umask=umask) == expected


def test_the_folder_and_the_order_of_its_names_do_not_matter(expected: list[str]) -> None:
    """Path, working directory and the order of creation do not change a bundle."""
    with temporary() as folder:
        deep = folder / "another place" / ("x" * 100)
        write_files(deep / "project", dict(reversed([*FILES.items()])))
        os.makedirs(folder / "cwd")
        assert bundled(deep, cwd=str(folder / "cwd")) == expected


@pytest.mark.parametrize("moment", [0, 1, 2**31 - 1, 2**31, 4_000_000_000])
def test_times_do_not_matter(expected: list[str], moment: int) -> None:
    """Times of files, directories and links do not change a bundle."""
    with temporary() as folder:
        write_files(folder / "project", FILES)
        for here, _, names in os.walk(folder / "project"):
            for name in (".", *names):
                os.utime(f"{here}/{name}", (moment, moment), follow_symlinks=False)
        assert bundled(folder) == expected


@as_root
def test_the_user_does_not_matter(expected: list[str]) -> None:
    """The user `nobody` makes the same bundle of files that `nobody` owns."""
    with temporary() as folder:
        write_files(folder / "project", FILES)
        for here, _, names in os.walk(folder):
            for name in (".", *names):
                os.chown(f"{here}/{name}", 65534, 65534, follow_symlinks=False)
        assert bundled(folder, user="65534") == expected


def test_the_number_of_processors_does_not_matter(expected: list[str]) -> None:
    """A single processor makes the same bundle."""
    with temporary() as folder:
        write_files(folder / "project", FILES)
        one = {min(os.sched_getaffinity(0))}
        assert bundled(folder, preexec_fn=lambda: os.sched_setaffinity(0, one)) == expected


def test_bytecode_and_caches_do_not_matter(expected: list[str]) -> None:
    """Bytecode and caches that a run leaves in the project are not part of the bundle."""
    with temporary() as folder:
        write_files(folder / "project", FILES)
        write_files(
            folder / "project",
            {
                "__pycache__/a.cpython-311.pyc": b"x",
                "pkg/__pycache__/m.pyc": b"y",
                ".pytest_cache/v": b"",
                "pkg/old.pyc": b"z",
            },
        )
        assert bundled(folder) == expected


def test_a_second_bundle_from_a_warm_index_is_the_same(expected: list[str]) -> None:
    """A bundle does not depend on whether its files were read or known from the index."""
    with temporary() as folder:
        write_files(folder / "project", FILES)
        assert bundled(folder) == bundled(folder) == expected
        (folder / "project" / "new.py").write_bytes(b"new")
        assert bundled(folder) != expected
        (folder / "project" / "new.py").unlink()
        assert bundled(folder) == expected
        shutil.rmtree(folder / "cache")
        assert bundled(folder) == expected


def test_the_digests_are_those_of_every_version(expected: list[str]) -> None:
    """The tree's digest is a contract, since users pin it.

    Change it only on purpose, with `flyte-tree 2`, and here. The manifest's digest is not a
    contract: it depends on the version of zstd.
    """
    assert expected[0] == "sha256:7b7c0298f98a92818a7b8379b6dae74b96dfa25f9b20eb5682c9bb077dfeb4d8"
