"""Links in a project: in a bundle they follow their targets, and no file is there twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Shell
from tests.support.files import write_files

FLOW = """
import os, pathlib
import flyte
{top}
env = flyte.TaskEnvironment(name="links", include={include})

@env.task
def read(path: str) -> str:
    return pathlib.Path(path).read_text()
"""


@pytest.fixture
def project(flyte: Shell) -> Shell:
    """Return a project of two versions, of which `current` leads to the first."""
    write_files(flyte.project, {"pyproject.toml": b"", "v1/a.txt": b"one", "v2/a.txt": b"two"})
    (flyte.project / "current").symlink_to("v1")
    flow(flyte)
    return flyte


def flow(shell: Shell, top: str = "", include: str = "()") -> None:
    (shell.project / "flow.py").write_text(FLOW.format(top=top, include=include))


def retarget(link: Path, target: str | Path) -> None:
    link.unlink()
    link.symlink_to(target)


def read(shell: Shell, path: str, style: str = "loaded_modules", exit_code: int = 0) -> Any:
    result = shell.json(
        "run", "--copy-style", style, "flow.py", "read", "--path", path, exit_code=exit_code
    )
    return result["outputs"]["o0"] if result.get("outputs") else result["error"]["message"]


WRITTEN = [
    "{root}/current/a.txt",
    "../../{name}/current/a.txt",
    "../current/../current/a.txt",
    "../current/a.txt",
]


@pytest.mark.slow
@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("style", ["all", "loaded_modules"])
def test_a_link_follows_a_retargeted_link(project: Shell, written: str, style: str) -> None:
    """A link follows one that is retargeted, warm as well as cold, in an unchanged directory.

    It may be absolute, lead out of the root and back in, or through another link and up again.
    """
    (project.project / "sub").mkdir()
    (project.project / "sub/shown.txt").symlink_to(
        written.format(root=project.project, name=project.project.name)
    )
    flow(project, include='("sub",)')
    assert read(project, "sub/shown.txt", style) == "one"
    retarget(project.project / "current", "v2")
    assert read(project, "sub/shown.txt", style) == "two"
    retarget(project.project / "current", "v1")
    assert read(project, "sub/shown.txt", style) == "one"


@pytest.mark.parametrize("style", ["all", "loaded_modules"])
def test_a_chain_that_now_leads_out_is_refused(project: Shell, tmp_path: Path, style: str) -> None:
    """A chain of links that now leads out is refused, warm as well as cold.

    The first link of the chain has not changed.
    """
    write_files(tmp_path / "outside", {"a.txt": b"outside"})
    (project.project / "shown.txt").symlink_to("current/a.txt")
    (project.project / ".flyteignore").write_text("current\n")
    flow(project, include='("shown.txt",)')
    assert read(project, "v1/a.txt", "all") == "one"
    retarget(project.project / "current", tmp_path / "outside")
    for options in ((), ("--no-cache",)):
        error = project.json(
            "run",
            *options,
            "--copy-style",
            style,
            "flow.py",
            "read",
            "--path",
            "shown.txt",
            exit_code=3,
        )["error"]
        assert "points outside of the project" in error["message"]


@pytest.mark.slow
@pytest.mark.parametrize("style", ["all", "loaded_modules"])
@pytest.mark.parametrize("how", ["read", "imported", "included"])
def test_what_comes_through_a_linked_folder_is_there_once(
    project: Shell, how: str, style: str
) -> None:
    """A file reached through a linked directory is bundled once, and can be deployed."""
    (project.project / "v1/module.py").write_text("VALUE = 1\n")
    (project.project / "v1/__init__.py").write_text("")
    top = {
        "read": "open(pathlib.Path(__file__).parent / 'current/a.txt').read()",
        "imported": "import current.module",
    }.get(how, "")
    flow(project, top, '["current/*.txt"]')
    assert read(project, "current/a.txt", style) == "one"
    files = [
        each["path"]
        for each in project.json("bundle", "ls", "--copy-style", style, "flow.py")["files"]
    ]
    assert (
        len(files) == len(set(files))
        and {"current", "v1/a.txt"} <= set(files)
        and "current/a.txt" not in files
    )
    project("deploy", "--version", "v1", "--copy-style", style, "flow.py", "env")
    assert project.json("run", "deployed-task", "links.read:v1", "--path", "current/a.txt")[
        "outputs"
    ] == {"o0": "one"}


@pytest.mark.parametrize("include", ['["*rent"]', '["data"]', '["data/**"]', '["current"]'])
def test_links_come_with_what_they_lead_to(project: Shell, include: str) -> None:
    """A link is bundled together with the file or directory that it leads to.

    Such links are matched by a glob, or lie inside of an included directory, and may lead in a
    circle.
    """
    write_files(project.project, {"data/x.txt": b"x", "far/y.txt": b"y"})
    (project.project / "data/to_file").symlink_to("../v2/a.txt")
    (project.project / "data/to_folder").symlink_to("../far")
    (project.project / "data/circle").symlink_to("..")
    flow(project, include=include)
    if "data" not in include:
        assert read(project, "current/a.txt") == "one"
        return
    (project.project / "data/circle").unlink()
    (project.project / "data/circle").symlink_to("../data")
    assert [
        read(project, f"data/{name}")
        for name in ("x.txt", "to_file", "to_folder/y.txt", "circle/x.txt")
    ] == ["x", "two", "y", "x"]


def test_an_edit_behind_a_link_is_seen(project: Shell) -> None:
    """An edit behind a link rebuilds the tree, and names the edited file as the reason."""
    flow(project, include='["current"]')
    assert read(project, "current/a.txt") == "one"
    (project.project / "v1/a.txt").write_text("edited")
    why = {node["kind"]: node["why"] for node in project.json("cache", "why", "flow.py")["nodes"]}
    assert why["tree"] == "1 file changed: v1/a.txt" and why["discovery"] == ""
    assert read(project, "current/a.txt") == "edited"
    assert os.readlink(project.project / "current") == "v1"
