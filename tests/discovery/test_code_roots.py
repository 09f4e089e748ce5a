"""Import roots: imported code from anywhere is bundled.

Nothing of a run or deployment comes from a working tree.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flyte_build
from flyte_build.declarations.serialize import image_value
from tests.support.command import Shell, states
from tests.support.files import write_files

MAIN = """
import flyte
{top}
env = flyte.TaskEnvironment(name="shop")

@env.task
def price(n: int = 1) -> str:
    {inner}
    return str({value})
"""


def main(top: str, value: str, inner: str = "pass") -> bytes:
    return MAIN.format(top=top, value=value, inner=inner).encode()


class Workspace:
    """A monorepo with the project `app` and members beside it.

    It has its own interpreter with flyte.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "ws", folder / "home"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        self.python = folder / "venv/bin/python"
        (self.site,) = (folder / "venv/lib").glob("python*/site-packages")
        (self.site / "of-flyte.pth").write_text("import of_flyte\n")
        # What the interpreter at hand has comes after all else, and its editable installs as they
        # are.
        packages = sysconfig.get_paths()["purelib"]
        (self.site / "of_flyte.py").write_text(f"import site; site.addsitedir({packages!r})\n")
        write_files(self.folder / "app", {"pyproject.toml": b"[project]\nname = 'app'\n"})

    def write(self, path: str, content: str | bytes) -> None:
        write_files(
            self.folder,
            {path: content if isinstance(content, bytes) else textwrap.dedent(content).encode()},
        )

    def editable(self, *folders: str) -> None:
        """Install members as `uv` and hatchling do: by a path file."""
        (self.site / "_members.pth").write_text(
            "".join(f"{self.folder / folder}\n" for folder in folders)
        )

    def shell(self, where: str = "app", **variables: str) -> Shell:
        program = (str(self.python), "-P", "-c", "from flyte_build.cli.start import main; main()")
        return Shell(
            self.folder / where, self.home, {"PYTHONDONTWRITEBYTECODE": "1", **variables}, program
        )


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A monorepo."""
    yield Workspace(tmp_path)
    for folder, _, _ in os.walk(tmp_path / "home"):
        os.chmod(folder, 0o700)


def bundled(shell: Shell, file: str, *options: str) -> set[str]:
    """Return the paths in a file's bundle."""
    return {each["path"] for each in shell.json("bundle", "ls", *options, file)["files"]}


LAYOUTS = {
    "a path file": ("core/src/core/__init__.py", "core/src", "path"),
    "PYTHONPATH": ("core/lib/core/__init__.py", "core/lib", "variable"),
    "a single module": ("core/core.py", "core", "path"),
    "a finder that maps": ("core/python/core/__init__.py", "core/python", "finder"),
    "a finder that comes first": ("core/python/core/__init__.py", "core/python", "first finder"),
    "a directory of another name": ("core/lib/__init__.py", "core/lib", "renamed"),
    "a link in site-packages": ("core/core/__init__.py", "core", "link"),
    "the current directory": ("elsewhere/core/__init__.py", "elsewhere", "current"),
}
FINDER = """
import sys
from importlib.util import spec_from_file_location
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "core":
            return spec_from_file_location(name, {file!r}, submodule_search_locations=[{folder!r}])
sys.meta_path.{add}
"""


def install(workspace: Workspace, how: str, file: str, root: str) -> Shell:
    """Make `core` importable in one of the ways, and return a shell for it."""
    path = workspace.folder / file
    if how == "path":
        workspace.editable(root)
    elif how in ("finder", "first finder", "renamed"):
        add = "insert(0, Finder)" if how == "first finder" else "append(Finder)"
        (workspace.site / "_core_finder.py").write_text(
            FINDER.format(file=str(path), folder=str(path.parent), add=add)
        )
        (workspace.site / "_core.pth").write_text("import _core_finder\n")
    elif how == "link":
        (workspace.site / "core").symlink_to(path.parent)
    if how == "variable":
        return workspace.shell(PYTHONPATH=str(workspace.folder / root))
    return workspace.shell(root if how == "current" else "app")


@pytest.mark.slow
@pytest.mark.parametrize("style", ["loaded_modules", "all"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_code_beside_the_project_comes_along(workspace: Workspace, name: str, style: str) -> None:
    """Code beside the project is bundled, however it is found, at import or in a function.

    An edit is a miss that names the file, and does not change a deployment.
    """
    file, root, how = LAYOUTS[name]
    is_package = file.endswith("__init__.py")
    workspace.write(file, "VALUE = 1\nimport os\n")
    workspace.write("app/flow.py", main("import core", "(core.VALUE, core.__file__)"))
    inner = "core.late" if is_package else "core"
    if is_package:
        workspace.write(file.replace("__init__", "late"), "VALUE = 10\n")
    workspace.write("app/later.py", main("", f"{inner}.VALUE", f"import {inner}"))
    shell = install(workspace, how, file, root)

    def run(name: str) -> Any:
        file = f"{workspace.folder}/app/{name}"
        return shell.json("run", "--copy-style", style, file, "price")

    for task, value in (("flow.py", "(1, "), ("later.py", "10" if is_package else "1")):
        first = run(task)
        assert first["outputs"]["o0"].startswith(value)
        assert str(workspace.folder) not in first["outputs"]["o0"], "it came from the working tree"
        assert set(states(run(task)).values()) == {"cached"}
    deployed = shell.json(
        "deploy",
        "--version",
        "v1",
        "--copy-style",
        style,
        f"{workspace.folder}/app/later.py",
        "env",
    )
    workspace.write(file.replace("__init__", "late") if is_package else file, "VALUE = 20\n")
    why = {
        node["kind"]: node["why"]
        for node in shell.json("cache", "why", f"{workspace.folder}/app/later.py")["nodes"]
    }
    assert (os.path.basename(file.replace("__init__", "late")) if is_package else "core.py") in why[
        "discovery"
    ] + why["tree"]
    assert run("later.py")["outputs"] == {"o0": "20"}
    assert shell.json("run", "deployed-task", "shop.price:v1")["outputs"] == {
        "o0": "10" if is_package else "1"
    }
    refused = shell(
        "deploy",
        "--version",
        "v1",
        "--copy-style",
        style,
        f"{workspace.folder}/app/later.py",
        "env",
        exit_code=3,
    ).stderr
    assert "with different content" in refused and "../" not in str(deployed)


def test_a_deployment_names_no_path_of_the_machine(workspace: Workspace) -> None:
    """Two checkouts in different directories deploy to one digest, siblings included."""
    digests = set()
    for name in ("one", "two"):
        workspace.write(f"{name}/app/pyproject.toml", "")
        workspace.write(f"{name}/app/flow.py", main("import core", "core.VALUE"))
        workspace.write(f"{name}/core/src/core.py", "VALUE = 1\n")
        shell = workspace.shell(f"{name}/app", PYTHONPATH=f"{workspace.folder}/{name}/core/src")
        (environment,) = shell.json("deploy", "--dry-run", "flow.py", "env")["deployments"]
        digests.add((environment["digest"], environment["tasks"][0]["bundle"]))
    assert len(digests) == 1


def test_import_roots_below_the_root_are_found_by_the_worker(workspace: Workspace) -> None:
    """The worker finds import roots below the project's root, in the order of `sys.path`.

    They are the members of a uv workspace, and a `where` of setuptools.
    """
    workspace.write("pyproject.toml", "[tool.uv.workspace]\nmembers = ['packages/*']\n")
    workspace.write("packages/core/src/core/__init__.py", "from .part import VALUE\n")
    workspace.write("packages/core/src/core/part.py", "VALUE = 'first'\n")
    workspace.write("packages/other/python/core/__init__.py", "VALUE = 'second'\n")
    workspace.write("flows/flow.py", main("import core", "core.VALUE"))
    workspace.editable("packages/core/src", "packages/other/python")
    for style in ("loaded_modules", "all"):
        run = workspace.shell("flows").json("run", "--copy-style", style, "flow.py", "price")
        assert run["outputs"] == {"o0": "first"}
    workspace.editable("packages/other/python", "packages/core/src")
    assert workspace.shell("flows").json("run", "flow.py", "price")["outputs"] == {"o0": "second"}


def test_a_task_file_of_a_member_has_one_name(workspace: Workspace) -> None:
    """A task file in an import root below the root is the module that others import."""
    workspace.write(".git/HEAD", "")
    workspace.write("packages/core/src/core/__init__.py", "")
    workspace.write("packages/core/src/core/kinds.py", "class Kind: pass\n")
    top = "from core.kinds import Kind\nfrom core import helper"
    workspace.write(
        "packages/core/src/core/flow.py", main(top, "(__name__, helper.kind() is Kind)")
    )
    workspace.write(
        "packages/core/src/core/helper.py",
        "import core.kinds\ndef kind(): return core.kinds.Kind\n",
    )
    workspace.editable("packages/core/src")
    assert workspace.shell(".").json("run", "packages/core/src/core/flow.py", "price")[
        "outputs"
    ] == {"o0": "('core.flow', True)"}


def test_a_namespace_package_may_be_spread_over_two_roots(workspace: Workspace) -> None:
    """A namespace package may have one portion in the project, and one beside it.

    Two files have the same relative path in two roots.
    """
    workspace.write("app/ns/here.py", "VALUE = 1\n")
    workspace.write("app/ns/data.txt", "in app")
    workspace.write(
        "one/ns/there.py",
        "import pathlib\nVALUE = (pathlib.Path(__file__).parent / 'data.txt').read_text()\n",
    )
    workspace.write("one/ns/data.txt", "in one")
    workspace.write(
        "two/ns/third.py",
        "import pathlib\nVALUE = (pathlib.Path(__file__).parent / 'data.txt').read_text()\n",
    )
    workspace.write("two/ns/data.txt", "in two")
    workspace.write(
        "app/flow.py",
        main(
            "import ns.here, ns.there, ns.third", "(ns.here.VALUE, ns.there.VALUE, ns.third.VALUE)"
        ),
    )
    workspace.editable("one", "two")
    shell = workspace.shell()
    assert shell.json("run", "flow.py", "price")["outputs"] == {"o0": "(1, 'in one', 'in two')"}
    assert len([path for path in bundled(shell, "flow.py") if path.endswith("ns/data.txt")]) == 2
    workspace.write("two/ns/data.txt", "edited")
    assert shell.json("run", "flow.py", "price")["outputs"] == {"o0": "(1, 'in one', 'edited')"}


def test_of_a_root_beside_only_what_is_needed_comes(workspace: Workspace) -> None:
    """Of a root beside the project, only files in use are bundled, even with `all`.

    They are imported, read or included, and `bundle ls` shows their origin.
    """
    workspace.write(
        "core/src/core/__init__.py",
        "import pathlib\nTEXT = (pathlib.Path(__file__).parent / 'a.txt').read_text()\n",
    )
    workspace.write("core/src/core/a.txt", "read")
    workspace.write("core/src/core/unused.py", "")
    workspace.write("core/src/core/data/b.txt", "included")
    workspace.write(
        "core/src/core/tasks.py",
        'import flyte\nenv = flyte.TaskEnvironment("core", include=["data"])\n',
    )
    inner = (
        "import pathlib, core.tasks; data = pathlib.Path(core.tasks.__file__).parent / 'data/b.txt'"
    )
    workspace.write(
        "app/flow.py",
        main(
            "import core\nfrom core.tasks import env as other",
            "(core.TEXT, data.read_text())",
            inner,
        ),
    )
    workspace.editable("core/src")
    shell = workspace.shell()
    for style in ("loaded_modules", "all"):
        assert shell.json("run", "--copy-style", style, "flow.py", "price")["outputs"] == {
            "o0": "('read', 'included')"
        }
        files = {
            each["path"]: each.get("from")
            for each in shell.json("bundle", "ls", "--copy-style", style, "flow.py")["files"]
        }
        beside = {path for path, source in files.items() if source}
        assert {files[path] for path in beside} == {
            f"../core/src/core/{name}"
            for name in ("__init__.py", "a.txt", "tasks.py", "data/b.txt")
        }
        assert not any(str(workspace.folder) in path for path in files) and "flow.py" in files
    listed = shell("bundle", "ls", "flow.py").stdout
    assert "../core/src/core/a.txt" in listed


def test_secrets_and_links_of_a_root_beside_are_refused(workspace: Workspace) -> None:
    """A refusal of secrets and links beside the project gives their relative path.

    That path allows them.
    """
    workspace.write(
        "core/core/__init__.py",
        "import pathlib\nKEY = (pathlib.Path(__file__).parent / 'pem.txt').read_text()\n",
    )
    workspace.write(
        "core/core/pem.txt",
        "-----BEGIN PRIVATE KEY-----\n" + "A" * 64 + "\n-----END PRIVATE KEY-----\n",
    )
    workspace.write("app/flow.py", main("import core", "len(core.KEY)"))
    workspace.editable("core")
    shell = workspace.shell()
    assert (
        "../core/core/pem.txt: it contains a private key"
        in shell("run", "flow.py", "price", exit_code=3).stderr
    )
    workspace.write("app/flyte.toml", 'bundle.allow_secrets = ["../core/core/pem.txt"]\n')
    assert shell.json("run", "flow.py", "price")["phase"] == "succeeded"


def test_what_was_not_bundled_is_refused_in_the_worker(workspace: Workspace) -> None:
    """A dynamic import of a sibling fails with a hint, and never finds the working tree.

    A traceback shows the sibling's own path.
    """
    workspace.write("core/core/__init__.py", "def fail():\n    raise ValueError('here')\n")
    workspace.write("core/core/dynamic.py", "VALUE = 1\n")
    inner = (
        "import importlib; core.fail() if n == 2 else importlib.import_module('core.' + 'dynamic')"
    )
    workspace.write("app/flow.py", main("import core", "1", inner))
    workspace.editable("core")
    shell = workspace.shell()
    assert "dynamic" in shell("run", "flow.py", "price", exit_code=1).stderr
    assert (
        '"../core/core/__init__.py", line 2'
        in shell("run", "flow.py", "price", "--n", "2", exit_code=1).stderr
    )
    workspace.write("other/other.py", "VALUE = 1\n")
    workspace.write("app/flow.py", main("", "1", "__import__('oth' + 'er')"))
    workspace.editable("core", "other")
    failed = shell("run", "flow.py", "price", exit_code=1).stderr
    assert "No module named 'other' in the bundle" in failed and "include" in failed


def test_a_compiled_extension_comes_along_and_is_said_to(workspace: Workspace) -> None:
    """A compiled extension is bundled, with a note that it binds the bundle to this platform."""
    source = sysconfig.get_config_var("EXT_SUFFIX")
    extension = next(Path(sysconfig.get_paths()["platlib"]).glob(f"xxhash/_xxhash{source}"))
    workspace.write(f"core/fast/_xxhash{source}", extension.read_bytes())
    workspace.write("core/fast/__init__.py", "")
    workspace.write(
        "app/flow.py", main("import fast._xxhash", "fast._xxhash.xxh32(b'').intdigest()")
    )
    workspace.editable("core")
    done = workspace.shell()("run", "flow.py", "price")
    assert (
        done.stdout.strip().isdigit()
        and "machine code" in done.stderr
        and "../core/fast/_xxhash" in done.stderr
    )


def test_local_runs_import_the_same(workspace: Workspace) -> None:
    """A local run imports the same modules as discovery, from the working tree."""
    workspace.write("core/src/core.py", "VALUE = 5\n")
    workspace.write("app/flow.py", main("import core, beside", "core.VALUE + beside.VALUE"))
    workspace.write("here/beside.py", "VALUE = 6\n")
    workspace.editable("core/src")
    shell = workspace.shell("here")
    assert shell.json("run", "--local", "../app/flow.py", "price")["outputs"] == {"o0": "11"}
    assert shell.json("run", "../app/flow.py", "price")["outputs"] == {"o0": "11"}


# --- The root


def test_the_root_does_not_depend_on_where_one_stands(workspace: Workspace) -> None:
    """The root and the tree do not depend on the current directory.

    It is the file's directory, one above, another one, or `/`; nothing is prepared anew.
    """
    workspace.write("app/jobs/flow.py", main("import helper", "helper.VALUE"))
    workspace.write("app/helper.py", "VALUE = 1\n")
    file = f"{workspace.folder}/app/jobs/flow.py"
    trees = set()
    for at, where in enumerate(
        (
            f"{workspace.folder}/app",
            f"{workspace.folder}/app/jobs",
            f"{workspace.folder}",
            "/",
            "/tmp",
        )
    ):
        result = workspace.shell(where).json("run", os.path.relpath(file, where), "price")
        trees.add(next(node["digest"] for node in result["prepared"] if node["kind"] == "tree"))
        assert set(states(result).values()) == ({"cached"} if at else {"made"})
    assert len(trees) == 1
    assert (
        f"root {workspace.folder}/app"
        in workspace.shell()("run", "--explain", file, "price").stderr
    )


def test_each_project_of_a_monorepo_has_its_own_files(workspace: Workspace) -> None:
    """Settings are those of the file's project, and nothing is written to the current directory."""
    workspace.write(".git/HEAD", "")
    workspace.write("app/flyte.toml", "task.domain = 'here'\n")
    workspace.write("flyte.toml", "task.domain = 'above'\n")
    workspace.write("app/flow.py", main("", "1"))
    before = sorted(path for path in workspace.folder.rglob("*"))
    shell = workspace.shell(".")
    shell("run", "app/flow.py", "price")
    (run,) = (
        shell.json("get", "run", "-d", "here")
        if "-d" in shell("get", "run", "--help").stdout
        else shell.json("get", "run")
    )
    assert run["phase"] == "succeeded"
    shell("run", "app/flow.py", "nothing", exit_code=2)
    shell("lock", "missing.py", exit_code=2)
    assert sorted(path for path in workspace.folder.rglob("*")) == before


def test_the_home_folder_is_no_project(tmp_path: Path) -> None:
    """The home directory is not a project, whatever is in it.

    A file in a directory below it, outside of any project, has that directory as its root.
    """
    home = Path(
        write_files(
            tmp_path / "home",
            {
                "pyproject.toml": b"",
                ".git/HEAD": b"",
                "work/flow.py": main("", "1"),
                "work/x.txt": b"x",
            },
        )
    )
    shell = Shell(home / "work", home)
    assert "root " + str(home / "work") in shell("run", "--explain", "flow.py", "price").stderr


def test_an_image_that_a_member_declares_names_its_files_alike_in_every_checkout(
    workspace: Workspace,
) -> None:
    """Requirements beside the project are named by their path from its root, in any checkout."""
    for name in ("one", "two"):
        workspace.write(f"{name}/app/pyproject.toml", "")
        workspace.write(f"{name}/core/requirements.txt", "nothing-of-this-name==1\n")
        image = 'pathlib.Path(__file__).parent / "requirements.txt"'
        workspace.write(
            f"{name}/core/core.py",
            "import flyte, pathlib\nimage = flyte.Image.from_debian_base((3,"
            f" 11)).with_requirements({image})\n",
        )
        flow = (
            'import flyte, core\nenv = flyte.TaskEnvironment("shop",'
            " image=core.image)\n\n@env.task\ndef price() -> None: ...\n"
        )
        workspace.write(f"{name}/app/flow.py", flow)
        shell = workspace.shell(f"{name}/app", PYTHONPATH=f"{workspace.folder}/{name}/core")
        refused = shell("run", "--locked", "flow.py", "price", exit_code=3).stderr
        assert "../core/requirements.txt" in refused and str(workspace.folder) not in refused
    declared = flyte_build.Image.from_debian_base().with_requirements(
        workspace.folder / "one/core/requirements.txt"
    )
    for root, path in (
        (workspace.folder / "one/app", "../core/requirements.txt"),
        (Path("/srv/app"), None),
    ):
        (step,) = image_value(declared, str(root))["steps"]
        assert step["file"] == (path or str(workspace.folder / "one/core/requirements.txt"))


def test_what_is_outside_of_the_root_is_said_with_the_root(tmp_path: Path) -> None:
    """A file in no project has its directory as root; one above it is reported with a hint."""
    write_files(
        tmp_path / "demo",
        {
            "data.csv": b"1",
            "jobs/flow.py": main("", "1").replace(b'"shop"', b'"shop", include=["../data.csv"]'),
        },
    )
    shell = Shell(tmp_path / "demo", tmp_path / "home")
    refused = shell("run", "jobs/flow.py", "price", exit_code=2).stderr
    assert f"The project's root is {tmp_path}/demo/jobs." in refused and "flyte.toml" in refused
    (tmp_path / "demo/flyte.toml").write_text("")
    assert shell("run", "jobs/flow.py", "price").stdout == "1\n"


def test_a_current_folder_that_is_gone_is_no_matter(workspace: Workspace) -> None:
    """In a directory that no longer exists, a file with an absolute path runs.

    A command that would search the directory reports that it is gone.
    """
    workspace.write("app/flow.py", main("", "1"))
    gone = workspace.folder / "gone"
    gone.mkdir()
    shell = workspace.shell()
    flyte = " ".join(map(shlex.quote, shell.program))
    for arguments in (
        f"run {workspace.folder}/app/flow.py price",
        f"run --local {workspace.folder}/app/flow.py price",
        "get run -h",
        "cache warm --all",
    ):
        code = f"mkdir -p {gone}; cd {gone}; rmdir {gone}; {flyte} {arguments}"
        done = subprocess.run(
            ["sh", "-c", code], env=shell.environment, capture_output=True, text=True, check=False
        )
        wanted = (
            (2, "The current directory no longer exists")
            if "warm" in arguments
            else (0, "1" if "price" in arguments else "Usage")
        )
        assert (done.returncode, wanted[1] in done.stdout + done.stderr) == (
            wanted[0],
            True,
        ), done.stderr


def test_one_file_may_be_two_modules(workspace: Workspace) -> None:
    """A file in two nested directories of `sys.path` may be two modules, as in Python."""
    workspace.write("core/src/core.py", "VALUE = 1\n")
    workspace.write(
        "app/flow.py",
        main("import core, src.core", "(core.VALUE, src.core.VALUE, core is src.core)"),
    )
    workspace.editable("core", "core/src")
    shell = workspace.shell()
    assert shell.json("run", "flow.py", "price")["outputs"] == {"o0": "(1, 1, False)"}
    assert len([path for path in bundled(shell, "flow.py") if path.endswith("core.py")]) == 2


def test_data_of_a_member_that_is_missing_in_the_task_is_named_with_the_remedy(
    workspace: Workspace,
) -> None:
    """Missing data of a member is reported with a remedy, which works."""
    workspace.write(
        "core/core/__init__.py",
        "import pathlib\ndef data(): return (pathlib.Path(__file__).parent /"
        " 'late.txt').read_text()\n",
    )
    workspace.write("core/core/late.txt", "late")
    workspace.write("app/flow.py", main("import core", "core.data()"))
    workspace.editable("core")
    failed = workspace.shell()("run", "flow.py", "price", exit_code=1).stderr
    assert (
        "../core/core/late.txt is beside the project, but not in the bundle" in failed
        and "copy-style" not in failed
    )
    assert 'include=["../core/core/late.txt"]' in failed
    workspace.write(
        "app/flow.py",
        main("import core", "core.data()").replace(
            b'"shop"', b'"shop", include=["../core/core/late.txt"]'
        ),
    )
    assert workspace.shell().json("run", "flow.py", "price")["outputs"] == {"o0": "late"}
