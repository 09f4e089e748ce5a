"""flyte.lock: the pins of images are checked, upgraded, and otherwise stable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_build.cas.digest import Digest
from flyte_build.errors import ImageBuildError, NotLocked
from flyte_build.images.lock import lockfile
from flyte_build.images.lock.lockfile import Lock
from flyte_build.images.lock.pins import LockedPackages, PinnedBase, PinnedStep, Wanted, Wheel
from flyte_build.images.lock.project_lock import Pins
from flyte_build.images.platforms import PYTHON
from flyte_build.images.recipe import BaseStep, Recipe, Source
from tests.support.bases import MadeWheel, base_of
from tests.support.command import FLYTE, Shell
from tests.support.shop import PrivateIndex, declare, shop

__all__ = ["shop"]  # A fixture.


def text(shop: Shell) -> str:
    return (shop.project / "flyte.lock").read_text()


def versions(shop: Shell) -> dict[str, str]:
    """Return the versions that `flyte.lock` pins."""
    lock = lockfile.parse(text(shop), "flyte.lock")
    return {wheel.name: wheel.version for packages in lock.packages for wheel in packages.wheels}


def hide(shop: Shell, *names: str) -> None:
    """Move wheels out of the shop."""
    for name in names:
        (shop.project / "wheels" / f"{name}-py3-none-any.whl").rename(
            shop.home.parent / f"{name}.hidden"
        )


def offer(shop: Shell, *names: str) -> None:
    """Move wheels back into the shop."""
    for name in names:
        (shop.home.parent / f"{name}.hidden").rename(
            shop.project / "wheels" / f"{name}-py3-none-any.whl"
        )


def test_a_run_pins_what_it_has_to_resolve(shop: Shell) -> None:
    """A run reports once that it pins packages, and the pin holds for newer wheels and caches."""
    hide(shop, "alpha-2.0", "beta-2.0")
    told = shop("run", "tasks.py", "versions").stderr
    assert told.count("pinned in flyte.lock (commit it)") == 1
    before = text(shop)
    offer(shop, "alpha-2.0", "beta-2.0")
    shop.home = shop.home.with_name("elsewhere")
    again = shop("-of", "json", "run", "--locked", "tasks.py", "versions")
    assert '"alpha": "1.0"' in again.stdout and '"beta": "1.0"' in again.stdout
    assert text(shop) == before and "flyte.lock" not in again.stderr


def test_the_lock_file_is_no_part_of_the_code(shop: Shell) -> None:
    """A run that writes flyte.lock does not change the tree of the next one."""
    first = shop.json("run", "--copy-style", "all", "tasks.py", "versions")
    assert (shop.project / "flyte.lock").exists()
    again = shop.json("run", "--copy-style", "all", "tasks.py", "versions")
    assert {node["kind"]: node["digest"] for node in first["prepared"]}["tree"] == {
        node["kind"]: node["digest"] for node in again["prepared"]
    }["tree"]


def test_nothing_is_resolved_with_locked(shop: Shell) -> None:
    """With `--locked` or `FLYTE_LOCKED` nothing is resolved."""
    for arguments, env in ((["--locked"], {}), ([], {"FLYTE_LOCKED": "1"})):
        told = shop("run", *arguments, "tasks.py", "versions", exit_code=3, env=env).stderr
        assert "flyte.lock does not pin" in told and "flyte lock" in told
    shop("deploy", "--locked", "tasks.py", exit_code=3)
    shop("cache", "warm", "--locked", "tasks.py", exit_code=3)
    assert not (shop.project / "flyte.lock").exists()


def test_lock_completes_checks_and_drops(shop: Shell) -> None:
    """`--check` writes nothing, and names missing and unused entries."""
    hide(shop, "beta-2.0")
    found = shop.json("lock", "--check", exit_code=3)
    assert "alpha" in " ".join(found["missing"]) or "Python" in " ".join(found["missing"])
    assert not (shop.project / "flyte.lock").exists()
    changes = {each["name"]: (each["old"], each["new"]) for each in shop.json("lock")["changes"]}
    assert (
        changes["alpha"] == ("", "2.0")
        and changes["beta"] == ("", "1.0")
        and changes["Python"] == ("", PYTHON)
    )
    assert shop.json("lock", "--check") == {
        "path": str(shop.project / "flyte.lock"),
        "changes": [],
        "missing": [],
        "unused": [],
    }
    before = text(shop)
    declare(shop, '.with_pip_packages("beta", extra_args=LINKS)')
    told = shop("lock", "--check", exit_code=3).stderr
    assert (
        "does not pin the packages beta" in told
        and "unused   alpha" in told
        and text(shop) == before
    )
    shop("lock", "tasks.py")
    assert set(versions(shop)) == {"alpha", "beta"}, "one file says nothing about what others use"
    shop("lock")
    assert versions(shop) == {"beta": "1.0"}
    assert "is unchanged" in shop("lock").stderr


def test_a_resolve_that_finds_the_same_writes_the_same_bytes(shop: Shell) -> None:
    """Locking again writes the same bytes, whatever the order of names.

    That holds even if the file was deleted.
    """
    declare(shop, '.with_pip_packages("alpha", "beta", extra_args=LINKS)')
    shop("lock")
    before = text(shop)
    (shop.project / "flyte.lock").unlink()
    declare(shop, '.with_pip_packages("beta", "alpha", extra_args=LINKS)')
    shop("lock")
    assert text(shop) == before
    assert lockfile.dump(lockfile.parse(before, "")) == before


def test_a_new_package_moves_no_other(shop: Shell) -> None:
    """Pinned versions are preferred until they are upgraded: one package by its name, or all."""
    hide(shop, "alpha-2.0", "beta-2.0")
    shop("lock")
    offer(shop, "alpha-2.0", "beta-2.0")
    MadeWheel("gamma", "1.0").write(shop.project / "wheels")
    declare(shop, '.with_pip_packages("alpha", "gamma", extra_args=LINKS)')
    shop("lock")
    assert versions(shop) == {"alpha": "1.0", "beta": "1.0", "gamma": "1.0"}
    changes = shop.json("lock", "--upgrade", "Beta")["changes"]
    assert [(each["name"], each["old"], each["new"]) for each in changes] == [
        ("beta", "1.0", "2.0")
    ]
    shop("lock", "--upgrade", "tasks.py")
    assert versions(shop) == {"alpha": "2.0", "beta": "2.0", "gamma": "1.0"}


def test_a_file_counts_by_what_it_says_of_packages(shop: Shell) -> None:
    """Requirements count with all files that they name, a project by its dependencies alone."""
    (shop.project / "reqs").mkdir()
    (shop.project / "reqs" / "all.txt").write_text(
        "--no-index\n--find-links ../wheels\n-r more.txt\n-c limit.txt\n"
    )
    (shop.project / "reqs" / "more.txt").write_text("alpha\n")
    (shop.project / "reqs" / "limit.txt").write_text("beta<2\n")
    project = shop.project / "pyproject.toml"
    project.write_text('[project]\nname = "p"\nversion = "1"\ndependencies = ["beta>1"]\n')
    declare(shop, '.with_requirements("reqs/all.txt")')
    declare(shop, '.with_pyproject("pyproject.toml", extra_args=LINKS)', "other.py")
    shop("lock")
    lock = lockfile.parse(text(shop), "")
    assert [
        [f"{wheel.name}=={wheel.version}" for wheel in each.wheels] for each in lock.packages
    ] == [
        ["beta==2.0"],
        ["alpha==2.0", "beta==1.0"],
    ]
    assert sorted(lock.packages[1].wanted.files) == [
        "reqs/all.txt",
        "reqs/limit.txt",
        "reqs/more.txt",
    ]
    assert all(
        wheel.url.startswith("wheels/") for each in lock.packages for wheel in each.wheels
    ), "no path of this machine"
    project.write_text(project.read_text().replace('"1"', '"2"') + "[tool.other]\nx = 1\n")
    shop("lock", "--check")
    (shop.project / "reqs" / "limit.txt").write_text("beta<1.5\n")
    assert "-r reqs/all.txt" in shop("lock", "--check", exit_code=3).stderr


def test_files_are_followed_as_pip_follows_them(shop: Shell) -> None:
    """Requirements files are read as by pip: variables, quotes, comments; URLs are left to uv."""
    reqs = shop.project / "reqs"
    reqs.mkdir()
    shop.variables["REQS"] = "more"
    (reqs / "all.txt").write_text(
        "# -r none.txt\n--no-index\n--find-links ../wheels\n-r one.txt  # the first\n"
        "--requirement=${REQS}.txt\n-c 'the limit.txt'\n"
    )
    (reqs / "one.txt").write_text("alpha\n")
    (reqs / "more.txt").write_text("beta\n")
    (reqs / "the limit.txt").write_text("beta<2\n")
    declare(shop, '.with_requirements("reqs/all.txt")')
    shop("lock")
    (packages,) = lockfile.parse(text(shop), "").packages
    assert sorted(packages.wanted.files) == [
        f"reqs/{name}.txt" for name in ("all", "more", "one", "the limit")
    ]
    assert versions(shop) == {"alpha": "2.0", "beta": "1.0"}
    (reqs / "more.txt").write_text("beta>0\n")
    assert "-r reqs/all.txt" in shop("lock", "--check", exit_code=3).stderr
    (reqs / "more.txt").write_bytes(b"-r \xff\xfe")
    assert "Cannot parse the requirements file" in shop("lock", exit_code=2).stderr


def test_a_wheel_of_the_project_is_pinned_by_its_path(shop: Shell) -> None:
    """A wheel in the project is pinned by its path, whatever characters that has."""
    (odd := shop.project / "w 1#").mkdir()
    (wheel,) = (shop.project / "wheels").glob("alpha-2*.whl")
    wheel.rename(odd / wheel.name)
    (beta,) = (shop.project / "wheels").glob("beta-2*.whl")
    (shop.project / "r.txt").write_text(f"./wheels/{beta.name}\n")
    declare(
        shop,
        f'.with_pip_packages("alpha @ {(odd / wheel.name).as_uri()}").with_requirements("r.txt")',
    )
    shop("lock")
    (packages,) = lockfile.read(str(shop.project / "flyte.lock"))[0].packages
    assert [each.url for each in packages.wheels] == [f"w 1#/{wheel.name}", f"wheels/{beta.name}"]


@pytest.mark.slow
def test_a_script_says_its_packages_and_its_python(shop: Shell) -> None:
    """The Python of a script is the current one if its metadata allow that, else the oldest."""
    script = shop.project / "train.py"
    for asked, python in ((">=3.11", PYTHON), (">=3.40", ""), (">=3.13,<3.14", "3.13")):
        script.write_text(
            f'# /// script\n# requires-python = "{asked}"\n# dependencies = ["beta"]\n#'
            " ///\nprint(1)\n"
        )
        declare(shop, "", base='from_uv_script("train.py", name="t", extra_args=LINKS)')
        (shop.project / "flyte.lock").unlink(missing_ok=True)
        if not python:
            assert "requires Python" in shop("lock", exit_code=3).stderr
            continue
        base_of(shop.variables["FLYTE_IMAGE_BASE"].removesuffix(":{python}"), tag=python)
        shop("lock")
        (packages,) = lockfile.parse(text(shop), "").packages
        assert packages.python == python and packages.wheels[0].name == "beta"
        script.write_text(script.read_text() + "print(2)\n")
        shop("lock", "--check")
    script.write_text("print(1)\n")
    assert "no inline metadata" in shop("lock", exit_code=2).stderr


def test_a_uv_project_has_the_versions_of_its_lock(shop: Shell) -> None:
    """A uv project has the versions of uv.lock for its platform; more packages must fit them."""
    (shop.project / "pyproject.toml").write_text(
        '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies ='
        ' ["beta<2", "alpha ; sys_platform == \'darwin\'"]\n[tool.uv]\nno-index = true\nfind-links'
        ' = ["wheels"]\n'
    )
    env = {**shop.environment}
    subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "uv"), "lock", "--quiet"],
        cwd=shop.project,
        env=env,
        check=True,
    )
    declare(shop, '.with_uv_project("pyproject.toml")')
    shop("lock")
    found = {each.platform: each for each in lockfile.parse(text(shop), "").packages}
    assert {
        wheel.name: wheel.version
        for wheel in found["linux/amd64" if "linux/amd64" in found else "linux/arm64"].wheels
    } == {"beta": "1.0"}
    declare(shop, '.with_uv_project("pyproject.toml").with_pip_packages("alpha", extra_args=LINKS)')
    shop("lock")
    assert versions(shop) == {"alpha": "2.0", "beta": "1.0"}


def test_wheels_are_those_of_the_platform_that_is_meant(shop: Shell) -> None:
    """Wheels are the best ones for the image's platform, which need not be this machine's."""
    tags = [
        "cp311-cp311-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux_2_28_x86_64",
        "cp311-cp311-manylinux2014_aarch64",
        "cp311-cp311-manylinux_2_34_x86_64",
    ]
    for tag in tags:
        MadeWheel("native", "1.0", tag=tag).write(shop.project / "wheels")
    declare(
        shop,
        '.with_pip_packages("native", extra_args=LINKS)',
        base='from_debian_base((3, 11), platform=("linux/amd64", "linux/arm64"))',
    )
    base_of(shop.variables["FLYTE_IMAGE_BASE"].removesuffix(":{python}"), tag="3.11")
    shop("lock")
    found = {
        each.platform: each.wheels[0].filename for each in lockfile.parse(text(shop), "").packages
    }
    assert found == {
        "linux/amd64": f"native-1.0-{tags[1]}.whl",
        "linux/arm64": f"native-1.0-{tags[2]}.whl",
    }


@pytest.mark.parametrize(
    ("packages", "told"),
    [
        ('"alpha==9"', "there is no version of alpha==9"),
        ('"nowhere"', "nowhere"),
        ('"beta<2", "beta>1.5,<2"', "Cannot resolve the packages"),
        ('"sources"', "sources .*has no wheel for Python .*--builder docker"),
        ('"x @ git+https://example.com/x"', "has no wheel"),
        ('"alpha=="', "Cannot resolve the packages"),
    ],
)
def test_what_cannot_be_resolved_is_explained(shop: Shell, packages: str, told: str) -> None:
    """A failed resolution shows the resolver's words, without a traceback, and writes nothing."""
    import re

    (shop.project / "wheels" / "sources-1.0.tar.gz").write_bytes(b"")
    declare(shop, f".with_pip_packages({packages}, extra_args=LINKS)")
    assert re.search(told, shop("lock", exit_code=3).stderr, re.S)
    assert "[[packages]]" not in text(shop)


def test_an_index_that_cannot_be_reached_is_said(shop: Shell) -> None:
    """The error about an unreachable index shows no credentials of the user's configuration."""
    declare(shop, '.with_pip_packages("alpha")')
    env = {"UV_DEFAULT_INDEX": "http://me:s3cret@127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    told = shop("lock", exit_code=3, env=env).stderr
    assert (
        "Cannot look up the packages" in told
        and "Check the network" in told
        and "s3cret" not in told
    )


PRIVATE = """
[project]
name = "p"
version = "1"
[[tool.uv.index]]
name = "our.own"
url = "{url}/simple"
default = true
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "pyproject.toml"])
def test_the_users_index_is_asked_with_the_users_credentials(shop: Shell, how: str) -> None:
    """Locking, environments and layers use the credentials of the user's index.

    No credentials get into flyte.lock or any other file.
    """
    with PrivateIndex(shop) as index:
        declare(shop, '.with_pip_packages("beta")')
        login = f"http://me:s3cret@{index.host}/simple"
        named = {"UV_INDEX_OUR_OWN_USERNAME": "me", "UV_INDEX_OUR_OWN_PASSWORD": "s3cret"}
        if how == "pyproject.toml":
            (shop.project / how).write_text(PRIVATE.format(url=index.url))
        env = (
            {**named, "UV_INDEX": f"our-own={index.url}/simple"}
            if how == "UV_INDEX"
            else {how: login}
        )
        env = {**(named if how == "pyproject.toml" else env), "PIP_FIND_LINKS": ""}
        told = shop("lock", env=env).stderr
        assert (
            f"http://{index.host}/files/beta-1.0" in text(shop)
            and "s3cret" not in text(shop)
            and "me:" not in text(shop)
        )
        told += shop("run", "--locked", "tasks.py", "versions", env=env).stderr
        told += shop("build", "--locked", "tasks.py", "env", env=env).stderr
        assert "s3cret" not in told
    kept = [
        path
        for path in shop.home.rglob("*")
        if path.is_file() and "s3cret" in path.read_bytes().decode("latin-1")
    ]
    assert kept == []


@pytest.mark.parametrize(
    "command",
    [("build", "tasks.py", "env"), ("run", "tasks.py", "versions"), ("lock", "--upgrade")],
)
def test_an_index_that_wants_credentials_says_which_to_set(
    shop: Shell, command: tuple[str, ...]
) -> None:
    """The error about credentials names the index's variables or netrc, and shows no values."""
    with PrivateIndex(shop) as index:
        declare(shop, '.with_pip_packages("beta")')
        env = {
            "UV_INDEX": f"own={index.url}/simple",
            "UV_INDEX_OWN_USERNAME": "me",
            "UV_INDEX_OWN_PASSWORD": "s3cret",
        }
        shop("lock", env=env)
        told = shop(*command, exit_code=3, env={**env, "UV_INDEX_OWN_PASSWORD": "wr0ng"}).stderr
        assert (
            "UV_INDEX_OWN_USERNAME and UV_INDEX_OWN_PASSWORD" in told
            and "~/.netrc" in told
            and "127.0.0.1" in told
        )
        assert (
            "401" in told and "wr0ng" not in told and "later" not in told and "network" not in told
        )
        told = shop(*command, exit_code=3, env={"UV_DEFAULT_INDEX": f"{index.url}/simple"}).stderr
        assert "UV_DEFAULT_INDEX" in told and "~/.netrc" in told


@pytest.mark.slow
def test_two_commands_at_once_lose_no_pin(shop: Shell) -> None:
    """Concurrent commands lose no pin, and those with the same requirements agree."""
    for at in range(4):
        declare(
            shop,
            f'.with_pip_packages("{"alpha" if at % 2 else "beta"}",'
            f' extra_args=LINKS).with_env_vars({{"N": "{at}"}})',
            f"t{at}.py",
        )
    started = [shop.start("run", f"t{at}.py", "versions") for at in range(4)]
    for each in started:
        _, errors = each.communicate(timeout=100)
        assert each.returncode == 0, errors
    assert sorted(each.wanted.requirements for each in lockfile.parse(text(shop), "").packages) == [
        ("alpha",),
        ("beta",),
    ]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("version = 2\n", "newer version"),
        ("<<<<<<< HEAD\nversion = 1\n=======\nversion = 1\n>>>>>>> main\n", "take either side"),
        ("version = 1\npython = \n", "at line 2"),
        (
            'version = 1\n[[packages]]\nrequirements = ["alpha"]\n',
            "[[packages]] alpha: `python` is missing",
        ),
        ("version = 1\n\xff", "not UTF-8 (line 2)"),
    ],
)
def test_a_lock_file_that_is_wrong_is_refused(shop: Shell, written: str, told: str) -> None:
    """Every command refuses an invalid flyte.lock with a hint, and leaves it unchanged."""
    (shop.project / "flyte.lock").write_bytes(written.encode("latin-1"))
    for command in (("lock",), ("lock", "--check"), ("run", "tasks.py", "versions")):
        errors = shop(*command, exit_code=3).stderr
        assert (
            told.lower() in errors.lower()
            and f"{shop.project}/flyte.lock" in errors
            and "Traceback" not in errors
        )
        assert "flyte lock" in errors or "Upgrade flyte-build" in errors
    assert (shop.project / "flyte.lock").read_bytes() == written.encode("latin-1")


HEX = Digest.of(b"").hex
WRITTEN = f"""version = 1
python = "3.11"

[[base]]
reference = "python:3.11"
digest = "sha256:{HEX}"
python = "3.11"

[[packages]]
requirements = ["-r ../shared.txt", "numpy>=2", "uvicorn[standard] ; python_version >= '3.8'"]
files = {{"../shared.txt" = "sha256:{HEX}"}}
options = {{extra_args = ["--no-index", ""], extra_index_urls = ["https://i/simple"], index_url = "https://i/simple", pre = true}}
python = "3.11"
platform = "linux/amd64"
wheels = [
    {{name = "beta", version = "1.0", url = "wheels/a?b#c%20/beta-1.0-1-py3-none-any.whl", sha256 = "{HEX}"}},
    {{name = "my-numpy", version = "2.0+cu", url = "https://h/My_numpy-2.0%2Bcu-py3-none-any.whl?x=1", sha256 = "{HEX}", size = 3}},
    {{name = "zeta", version = "1!1.0rc1", url = "file:///w%20w/zeta-1!1.0.rc1-py2.py3-none-any.whl", sha256 = "{HEX}"}},
]

[[packages]]
requirements = ["never ; sys_platform == 'win32'"]
python = "3.12"
platform = "darwin/arm64"
wheels = []

[[step]]
key = "sha256:{HEX}"
platform = "linux/arm64"
digest = "sha256:{HEX}"
"""


def test_what_is_written_is_read_again() -> None:
    """A lockfile survives parsing and writing, with `\\r\\n` as well.

    Its wheels are from an index, from the project and from elsewhere; it has options, platforms and
    extras.
    """
    lock = lockfile.parse(WRITTEN, "flyte.lock")
    assert lockfile.dump(lock).partition("version")[2] == WRITTEN.partition("version")[2]
    assert lockfile.parse(WRITTEN.replace("\n", "\r\n"), "flyte.lock") == lock
    names = [wheel.filename for wheel in lock.packages[0].wheels]
    assert names == [
        "beta-1.0-1-py3-none-any.whl",
        "My_numpy-2.0+cu-py3-none-any.whl",
        "zeta-1!1.0.rc1-py2.py3-none-any.whl",
    ]


_WHEEL, _PACKAGES = "the wheel beta", "[[packages]] -r ../shared.txt, numpy>=2"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("version = 1\n", "", "`version` is missing"),
        ("version = 1\n", "version = true\n", "`version` is not an integer"),
        ("version = 1\n", "version = 0\n", "`version` is not 1"),
        ("version = 1\n", "version = 1\nother = 1\n", "`other` is not a known name"),
        ("version = 1\n", "version = 1\nversion = 1\n", "at line 2"),
        ("version = 1\n", "=======\nversion = 1\n", "contains an unfinished merge"),
        ("version = 1\n", f"version = 1\nx = {'[' * 5000}\n", "not well-formed"),
        ("version = 1\n", f"version = {'1' * 5000}\n", "not well-formed"),
        ('python = "3.11"\n\n', "python = 3.11\n\n", "`python` is not a string"),
        ('python = "3.11"\n\n', 'python = "three"\n\n', "`python` is not a minor version"),
        ("[[base]]", "[base]", "`base` is not a list of tables"),
        ("[[base]]", "base = 1\n[[other]]", "`base` is not a list of tables"),
        ("[[base]]", "base = [1]\n[[other]]", "[[base]] number 1: it is not a table"),
        ('reference = "python:3.11"\n', "", "[[base]] number 1: `reference` is missing"),
        ('reference = "python:3.11"', 'reference = ""', "[[base]] "),
        (
            'reference = "python:3.11"',
            'reference = "python:3.11"\ncolour = 1',
            "[[base]] python:3.11 (Python 3.11): `colour` is not a known name",
        ),
        (
            f'digest = "sha256:{HEX}"\npython',
            'digest = "sha256:12"\npython',
            "(Python 3.11): `digest` is not a digest",
        ),
        (f'digest = "sha256:{HEX}"\npython', "digest = 12\npython", "`digest` is not a string"),
        (
            "requirements = [",
            "requirements = [1, ",
            "[[packages]] number 1: `requirements` is not a list of strings",
        ),
        (
            """["never ; sys_platform == 'win32'"]""",
            '"abc"',
            "[[packages]] number 2: `requirements` is not a list",
        ),
        (
            """["never ; sys_platform == 'win32'"]""",
            "[]",
            "`requirements` must be sorted, without duplicates, and not empty",
        ),
        (
            """["never ; sys_platform == 'win32'"]""",
            '["b", "a"]',
            "`requirements` must be sorted, without duplicates",
        ),
        ("""["never ; sys_platform == 'win32'"]""", '["a", "a"]', "without duplicates"),
        (
            f'{{"../shared.txt" = "sha256:{HEX}"}}',
            '{"../shared.txt" = 1}',
            "`../shared.txt` of `files` is not a string",
        ),
        (f'{{"../shared.txt" = "sha256:{HEX}"}}', '["../shared.txt"]', "`files` is not a table"),
        ("pre = true", "pre = 1", "`pre` of `options` is not a boolean"),
        (
            'extra_index_urls = ["https://i/simple"]',
            "extra_index_urls = [1]",
            "`extra_index_urls` of `options` is not a list of strings",
        ),
        (
            'index_url = "https://i/simple"',
            "index_url = {}",
            "`index_url` of `options` is not a string",
        ),
        ("pre = true", "prerelease = true", "`prerelease` of `options` is not a known name"),
        ('python = "3.12"', 'python = ""', "`python` is not a minor version"),
        ('platform = "darwin/arm64"', 'platform = "darwin"', "`platform` is not a platform"),
        ("wheels = []", "", "`wheels` is missing"),
        ("wheels = []", "wheels = [1]", "the wheel 1 is not a table"),
        (
            'name = "beta"',
            'name = "Beta"',
            "`name` of the wheel Beta is not a normalized package name",
        ),
        ('name = "beta", ', "", "`name` of the wheel 1 is missing"),
        ('name = "beta"', 'name = "gamma"', "`url` of the wheel gamma is not a wheel of gamma 1.0"),
        ('name = "beta"', 'name = "beta", hash = 1', f"`hash` of {_WHEEL} is not a known name"),
        ('version = "1.0"', "version = true", f"{_PACKAGES}"),
        ('version = "1.0"', 'version = "1.1"', f"`url` of {_WHEEL} is not a wheel of beta 1.1"),
        ('version = "1.0"', 'version = "one"', "is not a wheel of beta one"),
        ("beta-1.0-1-py3-none-any.whl", "beta-1.0.tar.gz", "is not a wheel of beta 1.0"),
        ("wheels/a?b#c%20/", "../wheels/", f"`url` of {_WHEEL} leads outside the project"),
        ("wheels/a?b#c%20/", "wheels/../../", "leads outside the project"),
        ("wheels/a?b#c%20/", "/", "leads outside the project"),
        ("wheels/a?b#c%20/", "ftp://h/", "must be an http, https or file URL, or a path"),
        ("wheels/a?b#c%20/", "https:///", "has no host"),
        ("wheels/a?b#c%20/", "https://[h/", "is not a URL"),
        ("wheels/a?b#c%20/", "file://h/", "must have the form file:///PATH"),
        ("wheels/a?b#c%20/", "file:w/", "must have the form file:///PATH"),
        ("wheels/a?b#c%20/", "w\\u0000/", "null byte"),
        (
            "https://h/My",
            "https://me:s3cret@h/My",
            "`url` of the wheel my-numpy contains a user name or a password",
        ),
        ("size = 3", "size = -3", "`size` of the wheel my-numpy is not a number of bytes"),
        ("size = 3", "size = true", "is not a number of bytes"),
        ("size = 3", "size = 3.0", "is not a number of bytes"),
        (
            f'sha256 = "{HEX}", size',
            'sha256 = "12", size',
            "`sha256` of the wheel my-numpy is not a digest",
        ),
        ('name = "zeta"', 'name = "alpha"', "is not a wheel of alpha"),
        ('platform = "linux/arm64"', "platform = 1", "[[step]] sha256:"),
        (f'key = "sha256:{HEX}"', 'key = "k"', "[[step]] k (linux/arm64): `key` is not a digest"),
    ],
)
def test_every_wrong_shape_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    """The error about a malformed entry names the file, the entry, the mistake and a remedy.

    No value of a URL is shown.
    """
    assert WRITTEN.count(old) >= 1
    path = tmp_path / "flyte.lock"
    path.write_text(WRITTEN.replace(old, new, 1))
    with pytest.raises(ImageBuildError) as raised:
        lockfile.read(str(path))
    assert (
        told in f"{raised.value.what}: {raised.value.why}"
        and str(path) in raised.value.what
        and "flyte lock" in raised.value.hint
    )
    assert "s3cret" not in str(raised.value) and len(str(raised.value)) < 800


@pytest.mark.parametrize(
    ("name", "title"),
    [("base", "python:3.11"), ("packages", "-r ../shared.txt"), ("step", "sha256:")],
)
def test_an_entry_that_is_there_twice_is_refused(name: str, title: str) -> None:
    """A duplicate entry is refused, even if the two differ."""
    start = WRITTEN.index(f"[[{name}]]")
    entry = WRITTEN[start : WRITTEN.find("\n[[", start) + 1 or None]
    again = entry.replace(f'{HEX}"\npython', f'{Digest.of(b"2").hex}"\npython')
    with pytest.raises(ImageBuildError, match="appears twice") as raised:
        lockfile.parse(WRITTEN + again, "flyte.lock")
    assert f"[[{name}]] {title}" in raised.value.why


def test_wheels_are_sorted_and_each_package_is_there_once() -> None:
    """Wheels are sorted, and a lock has one version of each package."""
    lines = WRITTEN.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if '"beta"' in line)
    for changed in (
        [*lines[:at], lines[at], *lines[at:]],
        [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]],
    ):
        with pytest.raises(ImageBuildError) as raised:
            lockfile.parse("".join(changed), "flyte.lock")
        assert (
            "`wheels` must be sorted by name, with one wheel for each package" in raised.value.why
        )


_TEXTS = st.text(min_size=1, max_size=8)
_DIGESTS = st.binary(max_size=3).map(Digest.of)
_PYTHONS = st.sampled_from(["3.11", "3.12", "3.14"])
_PLATFORMS = st.sampled_from(["linux/amd64", "linux/arm64", "darwin/arm64"])
_PLACES = st.sampled_from(
    [
        "",
        "wheels/",
        "w #?%41ö/",
        "https://h:8000/a%20b/",
        "http://h/",
        "file:///w%20w/",
        "file://../../w/",
    ]
)
_WHEELS = st.builds(
    lambda name, version, place, digest, size: Wheel(
        name=name,
        version=version,
        url=f"{place}{name.replace('-', '_')}-{version}-py3-none-any.whl",
        digest=digest,
        size=size,
    ),
    st.from_regex(r"[a-z0-9]{1,3}(-[a-z0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["1.0", "2.0.0", "1!2", "3.0rc1", "4.post1", "5.dev0", "6+cu118"]),
    _PLACES,
    _DIGESTS,
    st.integers(0, 1 << 40),
)
_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "index_url": _TEXTS,
        "extra_index_urls": st.lists(_TEXTS, min_size=1, max_size=2),
        "pre": st.just(True),
        "extra_args": st.lists(st.text(max_size=8), min_size=1, max_size=3),
    },
)
_WANTED = st.builds(
    Wanted,
    requirements=st.sets(_TEXTS, min_size=1, max_size=4).map(lambda found: tuple(sorted(found))),
    files=st.dictionaries(_TEXTS, _DIGESTS, max_size=2),
    options=_OPTIONS,
    python=_PYTHONS,
    platform=_PLATFORMS,
)
_LOCKS = st.builds(
    Lock,
    python=st.just("") | _PYTHONS,
    bases=st.lists(
        st.builds(PinnedBase, reference=_TEXTS, digest=_DIGESTS, python=st.just("") | _PYTHONS),
        max_size=3,
        unique_by=lambda each: each.reference,
    ).map(lambda found: tuple(sorted(found, key=lambda each: each.reference))),
    packages=st.lists(
        st.builds(
            LockedPackages,
            wanted=_WANTED,
            wheels=st.lists(_WHEELS, max_size=4, unique_by=lambda each: each.name).map(
                lambda found: tuple(sorted(found, key=lambda each: each.name))
            ),
        ),
        max_size=1,
    ).map(tuple),
    steps=st.lists(
        st.builds(PinnedStep, key=_DIGESTS.map(str), platform=_PLATFORMS, digest=_DIGESTS),
        max_size=1,
    ).map(tuple),
)


@given(_LOCKS)
def test_every_lock_survives_its_file(tmp_path_factory: pytest.TempPathFactory, lock: Lock) -> None:
    """Every lock is parsed and written to the same bytes, whatever its names and URLs are."""
    path = str(tmp_path_factory.getbasetemp() / "survives.lock")
    lockfile.write(path, lock)
    read, data = lockfile.read(path)
    assert read == lock and lockfile.dump(read).encode() == data


def _read_or_refused(path: Path) -> None:
    try:
        lock = lockfile.read(str(path))[0]
    except ImageBuildError as error:
        assert str(path) in error.what and error.hint
    else:
        lockfile.write(str(path), lock)


@given(
    st.integers(0, len(WRITTEN)),
    st.integers(0, 20),
    st.binary(max_size=6) | st.sampled_from([b'"', b"\n[[", b"{", b"true", b"\\"]),
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, count: int, new: bytes
) -> None:
    """Replacing bytes of a lockfile causes no other error than `ImageBuildError`."""
    path = tmp_path_factory.getbasetemp() / "bytes.lock"
    data = WRITTEN.encode()
    path.write_bytes(data[:at] + new + data[at + count :])
    _read_or_refused(path)


_VALUES = st.recursive(
    st.text(max_size=5)
    | st.integers(-2, 1 << 70)
    | st.booleans()
    | st.floats()
    | st.dates()
    | st.just(f"sha256:{HEX}"),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(st.data())
def test_any_structure_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A change of any value of a lockfile causes no other error than `ImageBuildError`.

    It may be removed, replaced, doubled or added.
    """
    import tomlkit

    path = tmp_path_factory.getbasetemp() / "structure.lock"
    document = tomllib.loads(WRITTEN)
    at: Any = document
    while True:
        names = list(at) if isinstance(at, dict) else list(range(len(at)))
        name = data.draw(st.sampled_from(names)) if names else None
        if name is None or not isinstance(at[name], dict | list) or data.draw(st.booleans()):
            break
        at = at[name]
    match data.draw(st.sampled_from(["take", "replace", "double", "add"])):
        case "take" if name is not None:
            del at[name]
        case "replace" if name is not None:
            at[name] = data.draw(_VALUES)
        case "double" if isinstance(at, list) and name is not None:
            at.append(at[name])
        case _:
            value = data.draw(_VALUES)
            (
                at.append(value)
                if isinstance(at, list)
                else at.update({data.draw(st.text(max_size=3)): value})
            )
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    _read_or_refused(path)


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    """An entry that could not be parsed again is refused by name, and the file is unchanged."""
    path = tmp_path / "flyte.lock"
    path.write_text(WRITTEN)
    lock = lockfile.parse(WRITTEN, "")
    bad = (
        PinnedBase(reference="", digest=Digest.of(b""), python=""),
        PinnedBase(reference="\udcff", digest=Digest.of(b""), python=""),
    )
    for base in bad:
        with pytest.raises(ImageBuildError, match="Cannot record the resolved pins"):
            lockfile.write(str(path), replace(lock, bases=(base,)))
    assert path.read_text() == WRITTEN and os.listdir(tmp_path) == ["flyte.lock"]


def test_many_packages_are_not_all_listed() -> None:
    """A sentence names a few packages, and the number of the others."""
    wanted = Wanted(
        requirements=tuple(f"p{at:03}" for at in range(100)), python="3.11", platform="linux/amd64"
    )
    assert str(wanted) == "p000, p001, p002, p003, p004 and 95 more (Python 3.11, linux/amd64)"


def test_an_empty_variable_locks_nothing(shop: Shell) -> None:
    """An empty `FLYTE_LOCKED` counts as unset; a value that is not a boolean is an error."""
    assert (
        "pinned in flyte.lock"
        in shop("run", "tasks.py", "versions", env={"FLYTE_LOCKED": ""}).stderr
    )
    assert (
        "FLYTE_LOCKED"
        in shop("run", "tasks.py", "versions", exit_code=2, env={"FLYTE_LOCKED": "maybe"}).stderr
    )


def test_a_lock_file_that_cannot_be_written_is_an_error(shop: Shell) -> None:
    """A resolution that cannot be saved is an error: the next run could resolve otherwise."""
    (shop.project / "flyte.lock").mkdir()
    assert "flyte.lock" in shop("run", "tasks.py", "versions", exit_code=3).stderr


def test_images_of_one_project_share_the_lock(shop: Shell) -> None:
    """All images of a project are locked together, and those of two projects are not."""
    (shop.project / "pyproject.toml").write_text("")
    (shop.project / "sub").mkdir()
    declare(
        shop, '.with_pip_packages("beta", extra_args=LINKS)', "sub/other.py".replace("sub/", "")
    )
    (shop.project / "other.py").rename(shop.project / "sub" / "other.py")
    shop("lock")
    assert [each.wanted.requirements for each in lockfile.parse(text(shop), "").packages] == [
        ("alpha",),
        ("beta",),
    ]
    outside = shop.home.parent / "outside"
    outside.mkdir()
    (outside / "o.py").write_text((shop.project / "tasks.py").read_text())
    assert "several projects" in shop("lock", "tasks.py", str(outside / "o.py"), exit_code=2).stderr
    assert "--check and --upgrade" in shop("lock", "--check", "--upgrade", exit_code=2).stderr


def test_pins_are_found_again(tmp_path: Path) -> None:
    """Bases and results of commands are pinned as packages are; `locked` refuses missing ones."""
    said: list[str] = []
    digest = Digest.of(b"")
    pins = Pins(
        str(tmp_path),
        said.append,
        locked=False,
        look_up=lambda name, with_python: PinnedBase(reference=name, digest=digest, python="3.12"),
    )
    recipe = Recipe(
        base=BaseStep(kind="reference", uri="a:1"),
        sources=(Source(kind="packages", packages=("x",)),),
    )
    assert pins.python(recipe) == "3.12"
    pins.keep_step(PinnedStep(key=digest, platform="linux/amd64", digest=digest))
    pins.save()
    pins.save()
    assert len(said) == 1 and "a:1" in said[0]
    again = Pins(
        str(tmp_path),
        said.append,
        locked=True,
        look_up=lambda name, with_python: pytest.fail("is asked"),
    )
    assert (
        again.base("a:1").digest == digest
        and again.step(digest, "linux/amd64")
        and again.step(digest, "linux/arm64") is None
    )
    for missing in (
        lambda: again.base("b:1"),
        lambda: again.packages(recipe, "3.12", "linux/amd64"),
    ):
        with pytest.raises(NotLocked):
            missing()


def test_an_older_reader_is_told_to_upgrade() -> None:
    """A newer format is refused by its number, with the advice to upgrade."""
    with pytest.raises(ImageBuildError, match="newer version"):
        lockfile.parse("version = 99\nunknown = 1\n", "flyte.lock")


def test_help_of_the_command_is_complete() -> None:
    """The installed command's help lists its options."""
    done = subprocess.run([FLYTE, "lock", "--help"], capture_output=True, text=True, check=True)
    assert "--upgrade [NAME]" in done.stdout and "--check" in done.stdout


# --- What it says, and what it leaves


def test_lock_says_what_changed_beside_versions(shop: Shell) -> None:
    """`flyte lock` reports changed requirements and wheel files, even with the same versions."""
    shop("lock")
    before = text(shop)
    declare(shop, '.with_pip_packages("alpha>=1", extra_args=LINKS)')
    told = shop("lock").stderr
    assert (
        text(shop) != before
        and "is unchanged" not in told
        and "packages locked for alpha>=1" in told
    )
    MadeWheel("beta", "2.0", {"beta.py": b"VERSION = 'other'\n"}).write(shop.project / "wheels")
    found = shop.json("lock", "--upgrade")
    assert found["changes"] == [] and found["beside"] == ["different wheel files or URLs for beta"]
    assert shop.json("lock")["beside"] == [] and "is unchanged" in shop("lock").stderr


def test_lock_leaves_a_complete_file_alone(shop: Shell) -> None:
    """`flyte lock` leaves a complete file unchanged, whatever its comments and order are."""
    declare(shop, '.with_pip_packages("alpha", extra_args=LINKS)', "other.py")
    declare(shop, '.with_pip_packages("beta<2", extra_args=LINKS)', "third.py")
    shop("lock")
    path = shop.project / "flyte.lock"
    head, *tables = path.read_text().split("[[packages]]")
    path.write_text(
        "# Ask Ann before you move anything.\n"
        + "[[packages]]".join([head, *(each.rstrip() + "\n\n" for each in reversed(tables))])
    )
    before = path.read_bytes()
    assert len(tables) > 1 and "is unchanged" in shop("lock").stderr and path.read_bytes() == before


def start_and_wait(shop: Shell, temporary: Path, count: int) -> subprocess.Popen[str]:
    """Start a `flyte lock` that waits for a wheel from a pipe, and wait until `count` run."""
    running = shop.start("lock")
    deadline = time.monotonic() + 30
    while len(list(temporary.glob("flyte-lock-*/packages.txt"))) < count:
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.01)
    return running


def folders_of(temporary: Path) -> list[Path]:
    """Return the directories of commands that resolve."""
    return [path for path in temporary.glob("flyte-lock-*") if path.is_dir()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_lock_that_is_ended_leaves_nothing(
    shop: Shell, tmp_path: Path, number: signal.Signals
) -> None:
    """A lock that ends removes its temporary files; after a kill the next one does.

    Files of running commands, and of others, stay.
    """
    temporary, wheel = tmp_path / "tmp", shop.project / "wheels/alpha-2.0-py3-none-any.whl"
    temporary.mkdir()
    (temporary / "flyte-lock-of-someone").write_text("no directory")
    shop.variables["TMPDIR"] = str(temporary)
    other = Shell(shop.home.parent / "other", shop.home, shop.variables)
    shutil.copytree(shop.project, other.project)
    wheel.unlink()
    os.mkfifo(wheel)
    goes_on = start_and_wait(shop, temporary, 1)
    ended = start_and_wait(shop, temporary, 2)
    try:
        ended.send_signal(number)
        ended.communicate(timeout=20)
        assert ended.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}.get(number, 5)
        assert len(folders_of(temporary)) == (2 if number == signal.SIGKILL else 1)
        (other.project / "flyte.lock.0123abcd").write_text("half")
        other("lock")
        assert (
            len(folders_of(temporary)) == 1
            and goes_on.poll() is None
            and (temporary / "flyte-lock-of-someone").is_file()
        )
        assert [path.name for path in other.project.glob("flyte.lock*")] == ["flyte.lock"]
    finally:
        for each in (goes_on, ended):
            try:
                # Each is a group of its own, with its resolver.
                os.killpg(each.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            each.communicate()
