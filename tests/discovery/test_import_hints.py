"""Hints for failed imports: in the project's own packages, in circles, by name."""

from __future__ import annotations

import pytest

from tests.support.command import Shell
from tests.support.files import write_files

TASK = b"env = flyte.TaskEnvironment(name='t')\n@env.task\ndef one() -> int: return 1\n"
PROJECT = {
    "flyte.toml": b"",
    "pkg/__init__.py": b"",
    "pkg/prices.py": b"VALUE = 1\n",
    "pkg/sub/__init__.py": b"",
    "pkg/sub/deep.py": b"VALUE = 2\n",
    "pkg/first.py": b"from pkg.second import TWO\nONE = 1\n",
    "pkg/second.py": b"from pkg.first import ONE\nTWO = 2\n",
    "missing.py": b"import flyte, pkg.price\n" + TASK,
    "circle.py": b"import flyte, pkg.first\n" + TASK,
    "foreign.py": b"import flyte, nowhere.at_all\n" + TASK,
    "dynamic.py": (
        b"import flyte, importlib\nenv = flyte.TaskEnvironment(name='t')\n@env.task\n"
        b"def one(name: str) -> int: return importlib.import_module(name).VALUE\n"
    ),
}


@pytest.fixture
def project(flyte: Shell) -> Shell:
    write_files(flyte.project, PROJECT)
    return flyte


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("missing.py", "it contains first, prices, second, sub. Did you mean pkg.prices?"),
        ("circle.py", "Two modules import each other: move what both need to a third one"),
        ("foreign.py", "Install 'nowhere' into this Python"),
    ],
)
def test_a_failed_import_is_explained(project: Shell, file: str, hint: str) -> None:
    error = project("run", file, "one", exit_code=3).stderr
    assert hint in error and error.count("Install") == (file == "foreign.py")


@pytest.mark.parametrize("name", ["pkg", "pkg.prices", "pkg.sub.deep"])
def test_a_dynamic_import_has_its_remedy_once(project: Shell, name: str) -> None:
    """The remedy for a dynamic import is given once, names the whole package, and works."""
    error = project("run", "dynamic.py", "one", "--name", name, exit_code=1).stderr
    assert error.count('include=["pkg"]') == 1
    assert f"failed: t.one: ModuleNotFoundError: No module named {'pkg'!r} in the bundle\n" in error
    text = (project.project / "dynamic.py").read_text()
    (project.project / "dynamic.py").write_text(
        text.replace("name='t'", "name='t', include=['pkg']")
    )
    done = project("run", "dynamic.py", "one", "--name", name, exit_code=None)
    assert done.returncode == 0 if name != "pkg" else "has no attribute 'VALUE'" in done.stderr
