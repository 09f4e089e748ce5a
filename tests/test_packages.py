"""Distributions built from a checkout: an sdist and a wheel, each of which installs and runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT

TOP = ("cas/", "bundler/", "images/", "runner/", "cli/")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the distributions of this checkout; the tree stays unchanged."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in tracked():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / name).is_symlink():
            target.symlink_to(os.readlink(CHECKOUT / name))
        elif (CHECKOUT / name).is_file():
            target.write_bytes((CHECKOUT / name).read_bytes())
    stale = source / "build" / "lib" / "flyte_build" / "gone.py"  # As an older build has left it.
    stale.parent.mkdir(parents=True)
    stale.touch()
    before = sorted(source.rglob("*"))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source))
    assert sorted(source.rglob("*")) == before
    return out


def run(*command: str) -> str:
    """Run a command that succeeds, and return its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked() -> list[str]:
    """Return the files of the checkout."""
    return subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()


def modules() -> set[str]:
    """Return the library's files, as they are named below the package."""
    return {
        name if name.startswith("flyte_build/") else f"flyte_build/{name}"
        for name in tracked()
        if name.startswith(("flyte_build/", *TOP)) and name.endswith((".py", "py.typed"))
    }


def test_the_wheel_holds_exactly_the_packages(built: Path) -> None:
    """The wheel has every module of the tree under `flyte_build`, once, and nothing else."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        held = [name for name in wheel.namelist() if ".dist-info/" not in name]
    stubs = {f"flyte-{name}" for name in tracked() if name.startswith("stubs/")}
    assert sorted(held) == sorted({*modules(), *stubs, "flyte.py"})


def test_the_source_distribution_holds_no_tests(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "stubs/__init__.pyi"} <= held
    assert not [name for name in held if name.startswith("tests")]


def test_the_workflows_in_the_documentation_install_the_wheel(built: Path) -> None:
    page = (CHECKOUT / "docs/ci.md").read_text()
    installs = re.findall(r"pip install wheels/(\S+) -r requirements.txt", page)
    assert len(installs) == 2 and all(len(list(built.glob(name))) == 1 for name in installs)


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_each_installs_into_a_fresh_environment(built: Path, tmp_path: Path, kind: str) -> None:
    """All three names of the command work, tasks run, and the runtime for images is complete.

    The libraries are those of the tests, so that nothing is downloaded.
    """
    python = str(tmp_path / "venv/bin/python")
    run(sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv"))
    packages = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "libraries.pth").write_text(f"{libraries}\n")
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall")
    distribution = str(next(built.glob(kind)))
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, distribution)
    versions = {
        run(*command, "--version")
        for command in (
            (str(tmp_path / "venv/bin/flyte"),),
            (python, "-m", "flyte"),
            (python, "-m", "flyte_build"),
        )
    }
    assert len(versions) == 1 and "flyte-build" in versions.pop()
    hello = (str(CHECKOUT / "examples/hello.py"), "hello", "--name", "you")
    assert run(python, "-m", "flyte", "run", *hello) == "Hello, you!\n"
    (tmp_path / "flyte.toml").touch()  # The environment is inside of the project.
    broken = "import flyte, pathspec\npathspec.PathSpec.from_lines('none', ['a'])\n"
    (tmp_path / "broken.py").write_text(broken)
    command = (python, "-m", "flyte", "run", str(tmp_path / "broken.py"), "task")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "broken.py:2" in done.stderr
    assert "site-packages" not in done.stderr and "flyte_build" not in done.stderr
    code = (
        "from flyte_build.images.layers import runtime\n"
        "for name, path in runtime.files(): print(name, path)"
    )
    every = dict(line.split(" ") for line in run(python, "-c", code).splitlines())
    assert "flyte_libraries/cloudpickle/cloudpickle.py" in every
    shipped = {name: path for name, path in every.items() if name.startswith("flyte_build/")}
    assert all(path.startswith(str(packages)) for path in shipped.values())
    assert set(shipped) == {
        name
        for name in modules()
        if name.endswith(".py") and not name.startswith("flyte_build/cli/")
    }
