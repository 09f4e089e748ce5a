"""Virtual environments in the cache: exactly the wheels of a lock, installed with `uv`.

Scripts in an environment contain its path, so it is created in its final place: `lock` is held
meanwhile, and the marker `complete` is written last. An environment without the marker, or one that
was modified, is created again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from flyte_build.cas.atomic import replace_file
from flyte_build.cas.boot import boot, is_since
from flyte_build.cas.folder import make_below, opener
from flyte_build.cas.lease import locked
from flyte_build.cas.os_errors import storing
from flyte_build.errors import ImageBuildError
from flyte_build.images.platforms import PYTHON, Interpreter, here

if TYPE_CHECKING:
    from flyte_build.cas.cache import Cache
    from flyte_build.cas.verify import Bad
    from flyte_build.images.layers.wheel_download import Fetcher
    from flyte_build.images.lock.pins import Wheel
    from flyte_build.images.lock.uv import Uv


def python_of(folder: str) -> str:
    """Return the path of an environment's Python."""
    return f"{folder}/venv/bin/python"


def variables(folder: str, runtime: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process in an environment.

    They are the inherited ones, without those that would add other packages. This package comes
    from the directory `runtime`. Commands of the environment come first in PATH.
    """
    found = {
        name: value for name, value in inherited.items() if name not in ("PYTHONHOME", "PYTHONPATH")
    }
    path = f"{folder}/venv/bin{os.pathsep}{inherited.get('PATH', os.defpath)}"
    return {**found, "PATH": path, "PYTHONPATH": runtime, "VIRTUAL_ENV": f"{folder}/venv"}


def is_complete(folder: str) -> bool:
    """Whether an environment exists, with its interpreter and exactly the installed packages.

    After a restart of the machine its files are checked, since they were not synced to disk.
    """
    try:
        with open(f"{folder}/complete", encoding="ascii") as file:
            marker = json.load(file)
        if not os.access(python_of(folder), os.X_OK) or marker["packages"] != _state(folder):
            return False
        if not is_since(marker["boot"]):
            if damage(folder):
                return False
            _mark(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def damage(folder: str, *, contents: bool = False) -> str:
    """Return what is wrong with the packages of an environment, or "".

    With `contents`, every byte is compared.
    """
    from . import verify

    if path := verify.damage(_packages(folder), contents=contents):
        return f"{path} is missing or was modified"
    return ""


def make(folder: str, wheels: Sequence[Wheel], root: str, uv: Uv, fetcher: Fetcher) -> None:
    """Create an environment of wheels, unless another process has just done so.

    `uv` runs in the directory `root`. The wheels are fetched and checked before any of them is
    installed. Raises `ImageBuildError` for a wheel that cannot be fetched, is not
    the locked one, or would be refused by a layer.
    """
    with storing("create an environment"):
        make_below(folder)
    with locked(f"{folder}/lock", exclusive=True):
        if is_complete(folder):
            return
        _clear(folder)
        _run(
            [
                "venv",
                "--quiet",
                "--no-project",
                "--no-config",
                "--python",
                _interpreter(),
                f"{folder}/venv",
            ],
            root,
            uv,
        )
        if packages := "".join(_package(*each) for each in _checked(folder, wheels, fetcher)):
            with (
                storing("create an environment"),
                open(f"{folder}/pylock.toml", "w", encoding="utf-8", opener=opener) as file,
            ):
                file.write(f'lock-version = "1.0"\ncreated-by = "flyte-build"\n{packages}')
            command = [
                "pip",
                "sync",
                "--quiet",
                "--no-build",
                "--python",
                python_of(folder),
                f"{folder}/pylock.toml",
            ]
            _run(command, root, uv)
        with storing("create an environment"):
            # Otherwise the first import would modify the directory.
            os.makedirs(f"{_packages(folder)}/__pycache__", exist_ok=True)
            _mark(folder)


def _mark(folder: str) -> None:
    replace_file(
        f"{folder}/complete",
        json.dumps({"boot": boot(), "packages": _state(folder)}).encode(),
        sync=False,
    )


def _interpreter() -> str:
    """Return the interpreter that the running virtual environment is based on.

    The environment itself may be deleted at any time.
    """
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def _packages(folder: str) -> str:
    return f"{folder}/venv/lib/python{PYTHON}/site-packages"


def _state(folder: str) -> list[int]:
    """Return values that change when a package is added or removed."""
    found = os.stat(_packages(folder))
    return [found.st_ino, found.st_mtime_ns]


def _clear(folder: str) -> None:
    import shutil

    with storing("remove a broken environment"):
        for name in ("complete", "pylock.toml"):
            if os.path.exists(f"{folder}/{name}"):
                os.unlink(f"{folder}/{name}")
        if os.path.lexists(f"{folder}/venv"):
            shutil.rmtree(f"{folder}/venv")


def _checked(folder: str, wheels: Sequence[Wheel], fetcher: Fetcher) -> Iterator[tuple[Wheel, str]]:
    """Yield the checked wheels, each with a link to its file.

    The link has the wheel's file name, since uv reads names, and a permanent place, where uv finds
    it again.
    """
    if not wheels:
        return
    from flyte_build.images.layers.wheel import check

    interpreter = Interpreter(
        version=PYTHON,
        executable=python_of(folder),
        packages=_packages(folder),
        scripts=os.path.dirname(python_of(folder)),
    )
    named = f"{os.path.dirname(os.path.dirname(folder))}/wheels"
    with storing("link a wheel"):
        _remove_dangling(named)
    for wheel, path in fetcher.fetch(wheels):
        check(wheel, path, interpreter, here())
        link = f"{named}/{wheel.digest.hex}/{wheel.filename}"
        with storing("link a wheel"):
            make_below(os.path.dirname(link))
            try:
                os.symlink(path, link)
            except FileExistsError:
                pass
        yield wheel, link


def _remove_dangling(named: str) -> None:
    """Remove links to wheels that were removed by a garbage collection."""
    from glob import escape, iglob

    for link in iglob(f"{escape(named)}/*/*"):
        if not os.path.exists(link):
            os.unlink(link)
            os.rmdir(os.path.dirname(link))


def _package(wheel: Wheel, path: str) -> str:
    """Return a wheel as a package of a pylock.toml (PyPA specifications, "pylock.toml")."""
    from urllib.parse import quote

    file = (
        f'{{ url = {_quoted("file://" + quote(path))}, hashes = {{ sha256 = "{wheel.digest.hex}"'
        " } }"
    )
    return (
        f"[[packages]]\nname = {_quoted(wheel.name)}\nversion = {_quoted(wheel.version)}\nwheels ="
        f" [{file}]\n"
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # Valid in TOML, too.


def _run(command: list[str], root: str, uv: Uv) -> None:
    from flyte_build.images.lock.uv import explained

    done = uv.run(command, root)
    if done.returncode != 0:
        raise ImageBuildError("Cannot create the environment", why=explained(done.stderr))


def verify(cache: Cache) -> tuple[int, list[Bad]]:
    """Check every environment, and return their number and the bad ones.

    A bad environment is removed, and created again when it is needed. The caller must not hold the
    cache. An environment in use is not removed, but no other run will use it.
    """
    from flyte_build.cas.gc import remove_tree
    from flyte_build.cas.verify import Bad

    bad = []
    with cache.preparing():
        names = cache.made(cache.environments)
        wrong = {name: what for name in names if (what := _wrong(f"{cache.environments}/{name}"))}
    for name, what in wrong.items():
        folder = f"{cache.environments}/{name}"
        with cache.collecting():
            if f"sha256:{name}" not in cache.leased():
                remove_tree(folder)
            elif os.path.exists(f"{folder}/complete"):
                os.unlink(f"{folder}/complete")
        bad.append(
            Bad(
                f"sha256:{name}",
                f"an environment: {what}; it is created again when it is needed",
                True,
            )
        )
    return len(names), bad


def _wrong(folder: str) -> str:
    """Return what is wrong with an environment; "" if nothing is, or if it is being created."""
    if not os.path.exists(f"{folder}/complete"):
        return ""
    return damage(folder, contents=True) if is_complete(folder) else "it was modified"
