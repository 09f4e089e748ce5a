"""Imports that change `sys.path` in odd ways: a run takes the same modules as Python.

They come from the bundle.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.discovery.test_code_roots import FINDER, Workspace, bundled, main, workspace
from tests.support.command import FLYTE, Shell, states
from tests.support.files import write_files

__all__ = ["workspace"]  # A fixture.
TOP = "import os, sys, pathlib\nHERE = os.path.dirname(os.path.abspath(__file__))\n"


@pytest.mark.slow
@pytest.mark.parametrize("style", ["loaded_modules", "all"])
@pytest.mark.parametrize(
    "entry",
    [
        'os.path.join(HERE, "..", "libs")',
        'HERE + "/../../beside"',
        'HERE + "/./inner"',
        'str(pathlib.Path(HERE).parent / "libs")',
    ],
)
def test_folders_that_a_file_puts_on_the_path(workspace: Workspace, entry: str, style: str) -> None:
    """Directories that a file puts on `sys.path` are bundled, and take precedence as in Python.

    Their paths have `..`, and are below the root or beside it. Deployments work, too.
    """
    for folder in ("app/libs", "beside", "app/jobs/inner"):
        workspace.write(f"{folder}/deep.py", "VALUE = 7\n")
        workspace.write(f"{folder}/idna.py", "VALUE = 'mine'\n")
    workspace.write(
        "app/jobs/flow.py",
        main(f"{TOP}sys.path.insert(0, {entry})\nimport deep, idna", "(deep.VALUE, idna.VALUE)"),
    )
    shell = workspace.shell("app/jobs")
    assert shell.json("run", "--copy-style", style, "flow.py", "price")["outputs"] == {
        "o0": "(7, 'mine')"
    }
    shell("deploy", "--version", "v1", "--copy-style", style, "flow.py", "env")
    assert shell.json("run", "deployed-task", "shop.price:v1")["outputs"] == {"o0": "(7, 'mine')"}
    assert not any(".." in path for path in bundled(shell, "flow.py", "--copy-style", style))


def test_a_python_that_is_reached_through_a_link(workspace: Workspace) -> None:
    """The library of a Python reached through a link, as in version managers, is not bundled."""
    link = workspace.folder.parent / "python"
    link.symlink_to(sys.base_prefix)
    subprocess.run(
        [
            link / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}",
            "-m",
            "venv",
            "--without-pip",
            link.parent / "linked",
        ],
        check=True,
    )
    (site,) = (link.parent / "linked/lib").glob("python*/site-packages")
    for each in workspace.site.glob("of*flyte*"):
        (site / each.name).write_text(each.read_text())
    workspace.write("app/flow.py", main("import json, asyncio", "json.dumps(1)", "import wave"))
    workspace.python = link.parent / "linked/bin/python"
    shell = workspace.shell()
    assert shell.json("run", "flow.py", "price")["outputs"] == {"o0": "1"}
    assert bundled(shell, "flow.py") == {"flow.py"}


def test_defaults_hold_no_path_of_the_working_tree(workspace: Workspace) -> None:
    """Defaults with paths are made where the code is, and two checkouts have one digest."""
    digests = set()
    for name in ("one", "two"):
        workspace.write(f"{name}/pyproject.toml", "")
        workspace.write(f"{name}/data.txt", "first")
        flow = (
            "import flyte, os, pathlib\nenv = flyte.TaskEnvironment('paths',"
            " include=['data.txt'])\n\n@env.task\n"
        )
        flow += (
            "def read(a: str = os.path.dirname(__file__) + '/data.txt', b: pathlib.Path ="
            " pathlib.Path(__file__).parent) -> str:\n"
        )
        workspace.write(
            f"{name}/flow.py", flow + "    return open(a).read() + (b / 'data.txt').read_text()\n"
        )
        shell = workspace.shell(name)
        (environment,) = shell.json("deploy", "--version", "v1", "flow.py", "env")["deployments"]
        digests.add(environment["digest"])
        assert str(workspace.folder) not in shell("run", "flow.py", "read", "--help").stdout
        (workspace.folder / name / "data.txt").write_text("edited")
        assert shell.json("run", "deployed-task", "paths.read:v1")["outputs"] == {
            "o0": "firstfirst"
        }
    assert len(digests) == 1


def test_packages_that_were_installed_into_a_folder_stay_there(workspace: Workspace) -> None:
    """A directory made by `pip install --target` is not bundled, unless it is below the root.

    Its packages have their metadata.
    """
    for folder in ("libs", "app/vendor"):
        workspace.write(f"{folder}/inst/__init__.py", "VALUE = 3\n")
        workspace.write(
            f"{folder}/inst-1.5.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: inst\nVersion: 1.5\n",
        )
    workspace.write(
        "app/flow.py", main("import inst, importlib.metadata", "importlib.metadata.version('inst')")
    )
    outside, inside = (
        workspace.shell(PYTHONPATH=str(workspace.folder / folder))
        for folder in ("libs", "app/vendor")
    )
    assert outside.json("run", "flow.py", "price")["outputs"] == {"o0": "1.5"} and bundled(
        outside, "flow.py"
    ) == {"flow.py"}
    assert "vendor/inst/__init__.py" in bundled(inside, "flow.py")


def test_what_is_no_text_on_the_path_is_passed_over(workspace: Workspace) -> None:
    """Entries of `sys.path` that are not strings are skipped, as in Python."""
    workspace.write(
        "app/flow.py",
        main(f"{TOP}sys.path += [pathlib.Path(HERE), 1, b'/x']\nimport json", "json.dumps(2)"),
    )
    for options in ((), ("--local",)):
        assert workspace.shell().json("run", *options, "flow.py", "price")["outputs"] == {"o0": "2"}


def test_an_empty_entry_of_pythonpath_is_the_current_folder(workspace: Workspace) -> None:
    """An empty entry of `PYTHONPATH` is the current directory, so results depend on it."""
    for folder in ("a", "b"):
        workspace.write(f"{folder}/hlp.py", f"VALUE = {folder!r}\n")
    workspace.write("app/flow.py", main("import hlp", "hlp.VALUE"))
    for folder in ("a", "b", "a"):
        shell = workspace.shell(folder, PYTHONPATH=f":{workspace.folder}/nothing")
        assert shell.json("run", "../app/flow.py", "price")["outputs"] == {"o0": folder}


def test_a_module_of_the_current_folder_that_is_a_package_s_too(workspace: Workspace) -> None:
    """Modules in the current directory are found as in Python, even in that of a package.

    That holds warm as well as cold.
    """
    workspace.write("app/pkg/__init__.py", "")
    workspace.write("app/pkg/sub/__init__.py", "")
    workspace.write("app/pkg/sub/optx.py", "VALUE = 'sub'\n")
    workspace.write(
        "app/flow.py",
        main(
            "import pkg.sub\ntry:\n    from optx import VALUE\nexcept ImportError:\n    VALUE ="
            " 'none'",
            "VALUE",
        ),
    )
    file = f"{workspace.folder}/app/flow.py"
    for where, value in (("app", "none"), ("app/pkg/sub", "sub"), ("app", "none")):
        assert workspace.shell(where).json("run", file, "price")["outputs"] == {"o0": value}


@pytest.mark.parametrize("how", ["ln -sfn v2 cur", "mv cur old; mv v2 cur"])
def test_a_link_that_flips_while_it_is_imported(workspace: Workspace, how: str) -> None:
    """If a link flips during the import, code and defaults are of one state, at once and later."""
    for name in ("v1", "v2"):
        workspace.write(f"app/{name}/m.py", f"VALUE = {name!r}\n")
    (workspace.folder / "app/cur").symlink_to("v1")
    flip = (
        "import subprocess, os\nfrom cur import m\nif"
        f" os.path.isdir({str(workspace.folder / 'app/v2')!r}) and m.VALUE == 'v1':\n"
    )
    flip += f"    os.system('cd {workspace.folder}/app; {how}')"
    workspace.write(
        "app/flow.py", main(flip, "(spec, m.VALUE)").replace(b"n: int = 1", b"spec: str = m.VALUE")
    )
    for _ in range(2):
        assert workspace.shell().json("run", "flow.py", "price")["outputs"]["o0"] == "('v2', 'v2')"


def test_bytecode_of_an_editable_install_is_not_believed(workspace: Workspace) -> None:
    """An edit of an editable install is seen even if its time and size are unchanged.

    That holds for any finder; stale bytecode is not used.
    """
    file = workspace.folder / "core/core/__init__.py"
    workspace.write("core/core/__init__.py", "VALUE = 'aaaa'\n")
    (workspace.site / "_core_finder.py").write_text(
        FINDER.format(file=str(file), folder=str(file.parent), add="append(Finder)")
    )
    (workspace.site / "_core.pth").write_text("import _core_finder\n")
    workspace.write(
        "app/flow.py",
        main("import core", "(spec, core.VALUE)").replace(b"n: int = 1", b"spec: str = core.VALUE"),
    )
    environment = {
        name: value
        for name, value in workspace.shell().environment.items()
        if name != "PYTHONDONTWRITEBYTECODE"
    }
    subprocess.run([workspace.python, "-c", "import core"], check=True, env=environment)
    assert list(file.parent.glob("__pycache__/*.pyc"))
    before = file.stat()
    file.write_text("VALUE = 'bbbb'\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert workspace.shell().json("run", "flow.py", "price")["outputs"] == {
        "o0": "('bbbb', 'bbbb')"
    }


def test_what_the_interpreter_s_start_has_imported_comes_from_the_bundle(
    workspace: Workspace,
) -> None:
    """Code that a `sitecustomize` imports comes from the bundle, and not from the working tree.

    That holds for deployments.
    """
    workspace.write("site/sitecustomize.py", "import common\n")
    workspace.write("site/common.py", "VALUE = 'first'\n")
    workspace.write("app/flow.py", main("import common", "(common.VALUE, common.__file__)"))
    shell = workspace.shell(PYTHONPATH=str(workspace.folder / "site"))
    shell("deploy", "--version", "v1", "flow.py", "env")
    workspace.write("site/common.py", "VALUE = 'edited'\n")
    output = shell.json("run", "deployed-task", "shop.price:v1")["outputs"]["o0"]
    assert output.startswith("('first'") and str(workspace.folder) not in output
    assert not any("sitecustomize" in path for path in bundled(shell, "flow.py"))


def test_looking_for_a_package_that_is_a_folder_of_data(workspace: Workspace) -> None:
    """`find_spec` of a missing package is None, even if a data directory has its name."""
    workspace.write("app/datasets/a.csv", "")
    workspace.write(
        "app/flow.py",
        main("", "found", "import importlib.util; found = importlib.util.find_spec('datasets')"),
    )
    assert workspace.shell().json("run", "flow.py", "price")["outputs"] == {"o0": "None"}


def test_an_editable_namespace_package_is_followed_by_its_finder(workspace: Workspace) -> None:
    """A module that a function imports from an editable namespace package is bundled."""
    workspace.write("core/lib/corp/stns/__init__.py", "")
    workspace.write("core/lib/corp/stns/lazy.py", "VALUE = 9\n")
    finder = f"""
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "corp":
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = ["/nowhere"]
            return spec
        if name == "corp.stns":
            return spec_from_file_location(name, "{workspace.folder}/core/lib/corp/stns/__init__.py")
sys.meta_path.append(Finder)
"""
    (workspace.site / "_corp_finder.py").write_text(finder)
    (workspace.site / "_corp.pth").write_text("import _corp_finder\n")
    workspace.write("app/flow.py", main("", "corp.stns.lazy.VALUE", "import corp.stns.lazy"))
    assert workspace.shell().json("run", "flow.py", "price")["outputs"] == {"o0": "9"}


def test_links_beside_the_project_are_followed(workspace: Workspace) -> None:
    """Links beside the project are followed.

    They are a farm of links, as a strict editable install makes it, or a linked directory of
    `PYTHONPATH` with data beside the module.
    """
    workspace.write(
        "src/strict/__init__.py",
        "import pathlib\nTEXT = (pathlib.Path(__file__).parent / 'a.txt').read_text()\n",
    )
    workspace.write("src/strict/a.txt", "text")
    write_files(workspace.folder / "build/strict", {})
    for name in ("__init__.py", "a.txt"):
        (workspace.folder / "build/strict" / name).symlink_to(
            workspace.folder / "src/strict" / name
        )
    (workspace.folder / "linked").symlink_to("src")
    workspace.write("app/flow.py", main("import strict", "strict.TEXT"))
    for folder in ("build", "linked"):
        shell = workspace.shell(PYTHONPATH=str(workspace.folder / folder))
        assert shell.json("run", "flow.py", "price")["outputs"] == {"o0": "text"}


def test_a_zip_file_on_the_path_stays_where_it_is(workspace: Workspace) -> None:
    """A zip file on the path is not bundled, and imported from its place, as documented."""
    with zipfile.ZipFile(workspace.folder / "z.zip", "w") as archive:
        archive.writestr("zmod.py", "VALUE = 4\n")
    workspace.write("app/flow.py", main("import zmod", "zmod.VALUE"))
    shell = workspace.shell(PYTHONPATH=str(workspace.folder / "z.zip"))
    assert shell.json("run", "flow.py", "price")["outputs"] == {"o0": "4"}


def test_names_that_are_no_modules_are_no_matter(workspace: Workspace) -> None:
    """Files that are not modules, and a shell's own variables, cause no new import.

    Such files are a backup, a log or data beside a module. The import copies all variables.
    """
    workspace.write("app/helper.py", "VALUE = 1\n")
    workspace.write(
        "app/flow.py", main("import os, helper; ALL = dict(os.environ)", "helper.VALUE")
    )
    shell = workspace.shell()
    shell("run", "flow.py", "price")
    for name in ("helper.csv", "helper.json", "helper.py~", "flow.log", "flow.py.orig"):
        workspace.write(f"app/{name}", "")
    again = shell.json(
        "run", "flow.py", "price", env={"OLDPWD": "/x", "PWD": "/y", "SHLVL": "9", "_": "z"}
    )
    assert set(states(again).values()) == {"cached"}


def test_sets_and_hashes_are_the_same_each_time(workspace: Workspace) -> None:
    """Defaults that are made of sets or hashes do not change a deployment's digest."""
    flow = main("NAMES = list({'a', 'b', 'c', 'd', 'e'})", "names").replace(
        b"n: int = 1", b"names: list[str] = NAMES, h: int = hash('q')"
    )
    workspace.write("app/flow.py", flow)
    found = [
        workspace.shell().json("deploy", "--dry-run", "flow.py", "env")["deployments"][0]["digest"]
        for _ in range(2)
    ]
    workspace.home = workspace.home.parent / "another"
    found.append(
        workspace.shell().json("deploy", "--dry-run", "flow.py", "env")["deployments"][0]["digest"]
    )
    assert len(set(found)) == 1


DEFAULTS: dict[str, Any] = {
    "a default dictionary": ("collections.defaultdict(int, a=1)", "dict[str, int]", "defaultdict"),
    "an enumeration's member": ("E.A", "int", "E"),
    "a moment that is there twice": (
        "datetime.datetime(2026, 10, 25, 2, 30, fold=1)",
        "datetime.datetime",
        "datetime",
    ),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_default_keeps_its_type(workspace: Workspace, name: str) -> None:
    """A default keeps its type; one that would change it is made where the task runs."""
    value, annotation, kind = DEFAULTS[name]
    top = "import collections, datetime, enum\nclass E(enum.IntEnum):\n    A = 1\n"
    flow = main(top, "(type(x).__name__, getattr(x, 'fold', 1))").replace(
        b"n: int = 1", f"x: {annotation} = {value}".encode()
    )
    workspace.write("app/flow.py", flow)
    assert workspace.shell().json("run", "flow.py", "price")["outputs"] == {"o0": str((kind, 1))}


def test_an_include_of_thousands_of_files_beside_all_is_looked_up_once(flyte: Shell) -> None:
    """With `all`, thousands of included files cost a warm run no extra lookups."""
    write_files(flyte.project, {"flyte.toml": b"", **{f"data/{n}.txt": b"" for n in range(3000)}})
    (flyte.project / "flow.py").write_text(
        main("", "1").replace(b'"shop"', b'"shop", include=["data"]').decode()
    )
    flyte("run", "--copy-style", "all", "flow.py", "price")
    code = (
        "import cProfile, pstats, sys; sys.argv = ['flyte', 'run', '--copy-style', 'all',"
        " 'flow.py', 'price']\n"
    )
    code += (
        "from flyte_build.cli.main import run_command\nprofile ="
        " cProfile.Profile()\nprofile.runcall(run_command, sys.argv[1:], None)\n"
    )
    code += (
        "print(sum(each[0] for name, each in pstats.Stats(profile).stats.items() if 'loads' in"
        " name[2]))"
    )
    python = Path(FLYTE).parent / "python"
    done = subprocess.run(
        [python, "-c", code],
        cwd=flyte.project,
        env=flyte.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout.split()[-1]) < 3000


def test_a_package_with_a_path_of_its_own(workspace: Workspace) -> None:
    """Modules found by `__path__` are bundled in their place, even if a function imports them."""
    for folder in ("app", "core"):
        workspace.write(
            f"{folder}/pkg{folder}/__init__.py",
            "import os\n__path__.append(os.path.dirname(__file__) + '/_vendor')\n",
        )
        workspace.write(f"{folder}/pkg{folder}/_vendor/bar{folder}.py", f"VALUE = {folder!r}\n")
    inner = "from pkgapp import barapp; from pkgcore import barcore"
    workspace.write(
        "app/flow.py", main("import pkgapp, pkgcore", "(barapp.VALUE, barcore.VALUE)", inner)
    )
    workspace.editable("core")
    shell = workspace.shell()
    assert shell.json("run", "flow.py", "price")["outputs"] == {"o0": "('app', 'core')"}
    assert {path for path in bundled(shell, "flow.py") if "bar" in path} == {
        "pkgapp/_vendor/barapp.py",
        ".flyte-roots/0/pkgcore/_vendor/barcore.py",
    }


@pytest.mark.parametrize("inside", [True, False])
def test_packages_in_folders_of_other_names(workspace: Workspace, inside: bool) -> None:
    """A package and a subpackage may each be mapped to a directory of another name.

    The directories are in the project or beside it.
    """
    where = "app" if inside else "core"
    for folder, text in (("one", "VALUE = 1\n"), ("two", "VALUE = 2\n")):
        workspace.write(f"{where}/{folder}/__init__.py", text)
        workspace.write(f"{where}/{folder}/lazy.py", text)
    finder = f"""
import sys
from importlib.util import spec_from_file_location
MAPPING = {{"nest": "{workspace.folder}/{where}/one", "nest.sub": "{workspace.folder}/{where}/two"}}
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if folder := MAPPING.get(name):
            return spec_from_file_location(name, folder + "/__init__.py", submodule_search_locations=[folder])
sys.meta_path.append(Finder)
"""
    (workspace.site / "_nest_finder.py").write_text(finder)
    (workspace.site / "_nest.pth").write_text("import _nest_finder\n")
    value = "(nest.VALUE, nest.sub.VALUE, nest.lazy.VALUE, nest.sub.lazy.VALUE)"
    workspace.write(
        "app/flow.py", main("import nest.sub", value, "import nest.lazy, nest.sub.lazy")
    )
    shell = workspace.shell()
    for style in ("loaded_modules", "all"):
        assert shell.json("run", "--copy-style", style, "flow.py", "price")["outputs"] == {
            "o0": "(1, 2, 1, 2)"
        }
