"""Checks beside behaviour: types, style, layers, and the structure of the package."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT

INTERFACE = (
    "from flyte_build.declarations.interface import interface_of\ndef task(x: str) -> str:"
    " ...\ninterface_of(task).dump_outputs('')"
)
BIN = os.path.dirname(sys.executable)


@pytest.mark.parametrize(
    "command",
    [
        ["mypy", "--no-incremental"],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["lint-imports", "--no-cache"],
    ],
    ids=["types", "lint", "format", "layers"],
)
def test_the_code_passes(command: list[str]) -> None:
    """The code passes the type checker, the linter, the formatter and the import contracts."""
    done = subprocess.run(
        [f"{BIN}/{command[0]}", *command[1:]],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import flyte", "typing dataclasses click sqlite3 asyncio"),
        ("import flyte; flyte.TaskEnvironment", "click sqlite3 asyncio pathspec rich docker oras"),
        ("import flyte_build.cas.digest", "click sqlite3 flyte_build.declarations.task"),
        ("import flyte_build.runner.worker.spawn", "typing dataclasses json subprocess"),
        (
            "import flyte_build.runner.worker.main",
            "click sqlite3 rich pathspec zstandard xxhash docker oras",
        ),
        (
            "import flyte.remote; flyte.remote.Task.get('env.task', version='v1')",
            "click sqlite3 rich pathspec zstandard xxhash docker oras flyte_build.ops.run",
        ),
        (
            INTERFACE,
            (
                "datetime decimal uuid pathlib base64 flyte_build.values.documents"
                " flyte_build.values.containers flyte_build.values.times"
            ),
        ),
        (
            "import flyte_build.declarations.interface",
            "flyte_build.values.annotations flyte_build.values.scalars",
        ),
        (
            "import flyte_build.cli.main",
            (
                "sqlite3 rich asyncio pathspec zstandard docker oras"
                " flyte_build.runner.controller.controller"
            ),
        ),
        (
            "import flyte_build.cli.get",
            (
                "rich asyncio pathspec zstandard docker oras flyte_build.ops.prepare"
                " flyte_build.cas.cache"
            ),
        ),
        (
            "import flyte_build.cli.run",
            (
                "rich asyncio pathspec zstandard docker oras tomlkit subprocess"
                " flyte_build.bundler.packs"
            ),
        ),
    ],
)
def test_imports_stay_within_their_budget(code: str, unwanted: str) -> None:
    """A warm command loads no module that it does not use."""
    check = (
        f"{code}; import sys; print([name for name in {unwanted.split()!r} if name in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-I", "-c", check], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def _parts() -> set[str]:
    """Return the parts at the top: those that `setup.py` names."""
    tree = ast.parse((CHECKOUT / "setup.py").read_text())
    lists = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARTS"
    ]
    return set(ast.literal_eval(lists[0]))


def test_the_package_holds_public_modules_and_parts_alone() -> None:
    """A module directly in `flyte_build` is public, or the face itself; all else is in a part."""
    own = CHECKOUT / "flyte_build"
    modules = {path.stem for path in own.glob("*.py")}
    public = {"durable", "errors", "models", "notify", "remote"}
    assert modules == {"__init__", "__main__", "_alias", "_version", *public}
    assert {f"flyte.{path.stem}" for path in (CHECKOUT / "stubs").glob("*.pyi")} == {
        "flyte.__init__",
        *(f"flyte.{name}" for name in public),
    }
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]
    layers = settings["importlinter"]["contracts"][0]["layers"]
    known = {name for layer in layers for name in layer.split(" | ")}
    assert {
        path.name for path in own.iterdir() if path.is_dir() and path.name != "__pycache__"
    } == known - modules


def test_a_part_at_the_top_has_its_link_and_its_ban() -> None:
    """Each part at the top has a link, and a ban on its second name.

    The links show type checkers the installed structure.
    """
    links = {path.name for path in (CHECKOUT / "flyte_build").iterdir() if path.is_symlink()}
    banned = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"][
        "flake8-tidy-imports"
    ]["banned-api"]
    assert links == _parts() == banned.keys()
    assert all(os.readlink(CHECKOUT / "flyte_build" / name) == f"../{name}" for name in links)


TWICE = {
    "Action": "what an engine carries out; and `flyte.remote.Action`",
    "Cache": "the store; and `flyte.Cache`",
    "Task": "`flyte.Task`; and `flyte.remote.Task`",
}


def test_class_names_are_unique() -> None:
    """Class names are unique, except private ones and those that users know from Flyte 2."""
    places: dict[str, list[str]] = {}
    for top in ("flyte_build", *sorted(_parts())):
        for folder, _, names in os.walk(CHECKOUT / top):  # It follows no links.
            for path in (f"{folder}/{name}" for name in names if name.endswith(".py")):
                classes = [
                    node
                    for node in ast.walk(ast.parse(Path(path).read_text()))
                    if isinstance(node, ast.ClassDef)
                ]
                for each in classes:
                    places.setdefault(each.name, []).append(path)
    assert {
        name for name, found in places.items() if len(found) > 1 and not name.startswith("_")
    } == TWICE.keys()


def test_the_face_gives_every_name_and_no_other() -> None:
    """`__all__` is sorted, and each of its names exists under both names of the package."""
    import flyte
    import flyte_build
    import flyte_build.errors

    assert flyte is flyte_build
    assert sorted(flyte_build.__all__) == flyte_build.__all__
    assert all(getattr(flyte_build, name) is not None for name in flyte_build.__all__)
    assert importlib.import_module("flyte.errors") is flyte_build.errors
