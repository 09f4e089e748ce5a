"""Wrong hits: random edits of a project, after each of which a warm resolve and a clean one must agree.

`FLYTE_TEST_EDITS` sets how many edits are made (300 without it); `FLYTE_TEST_SEED` repeats a failure.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.config.settings import CopyStyle
from flyte_build.prepare import Preparation
from flyte_build.project import Project

EDITS = int(os.environ.get("FLYTE_TEST_EDITS", "300"))
MAIN = """
import json, os, csv
import flyte
import helper
from pkg import part
from pkg.deep.leaf import LEAF
here = os.path.dirname(os.path.abspath(__file__))
LIMIT = json.load(open(os.path.join(here, "settings.json")))["limit"]
PLUGINS = ",".join(sorted(name for name in os.listdir(os.path.join(here, "plugins")) if name.endswith(".txt")))
HAS_FLAG = os.path.exists(os.path.join(here, "flag"))
try:
    import optional
    OPTIONAL = optional.VALUE
except ImportError:
    OPTIONAL = -1
env = flyte.TaskEnvironment(name="edits", include=["extra/*.cfg"])

@env.task
def job(limit: int = LIMIT, plugins: str = PLUGINS, flag: bool = HAS_FLAG, optional: int = OPTIONAL, value: int = helper.VALUE,
        part: int = part.VALUE, leaf: int = LEAF,
        mode: str = os.environ.get("EDIT_MODE", "none"), csv: str = getattr(csv, "MINE", "no")) -> str:
    import later
    return "done"
"""


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def make_project(root: Path) -> None:
    for path, text in {
        "main.py": MAIN,
        "helper.py": "VALUE = 1\n",
        "later.py": "import helper\n",
        "pkg/__init__.py": "",
        "pkg/part.py": "VALUE = 2\n",
        "pkg/deep/leaf.py": "LEAF = 3\n",
        "settings.json": '{"limit": 5}',
        "plugins/a.txt": "a",
        "extra/one.cfg": "1",
        "notes.md": "notes",
        ".gitignore": "*.log\n",
        "logs/x.log": "x",
    }.items():
        write(root, path, text)


def value(root: Path, path: str, name: str, rng: random.Random) -> None:
    write(root, path, f"{name} = {rng.randrange(10, 99)}\n")


def toggle(root: Path, path: str, text: str) -> None:
    if (root / path).exists():
        (root / path).unlink()
    else:
        write(root, path, text)


def same_size_and_time(root: Path, rng: random.Random) -> None:
    path = root / rng.choice(["helper.py", "pkg/part.py", "notes.md"])
    before = path.stat()
    text = path.read_text()
    path.write_text(text[:-2] + str(rng.randrange(10)) + text[-1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(root: Path, rng: random.Random) -> None:
    value(root, "new.tmp", "VALUE", rng)
    (root / "new.tmp").rename(root / "helper.py")


def shadow(root: Path, rng: random.Random) -> None:
    if (root / "helper/__init__.py").exists():
        shutil.rmtree(root / "helper")
    else:
        value(root, "helper/__init__.py", "VALUE", rng)


def become_package(root: Path, rng: random.Random) -> None:
    toggle(root, "pkg/deep/__init__.py", "")


def executable(root: Path, rng: random.Random) -> None:
    path = root / rng.choice(["helper.py", "notes.md", "main.py"])
    path.chmod(path.stat().st_mode ^ 0o111)


def linked(root: Path, rng: random.Random) -> None:
    if (root / "link.md").is_symlink():
        (root / "link.md").unlink()
    else:
        (root / "link.md").symlink_to(rng.choice(["notes.md", "helper.py"]))


def variable(root: Path, rng: random.Random) -> None:
    os.environ["EDIT_MODE"] = rng.choice(["fast", "slow", "none"])


COUNTING: list[Callable[[Path, random.Random], object]] = [
    lambda root, rng: value(root, "helper.py", "VALUE", rng),
    lambda root, rng: value(root, "pkg/part.py", "VALUE", rng),
    lambda root, rng: value(root, "pkg/deep/leaf.py", "LEAF", rng),
    lambda root, rng: value(root, "later.py", "import helper; X", rng),
    lambda root, rng: write(root, "settings.json", f'{{"limit": {rng.randrange(99)}}}'),
    lambda root, rng: toggle(root, f"plugins/{rng.choice('bcd')}.txt", "p"),
    lambda root, rng: toggle(root, "optional.py", f"VALUE = {rng.randrange(9)}\n"),
    lambda root, rng: toggle(root, "csv.py", "MINE = 'yes'\n"),
    lambda root, rng: toggle(root, "flag", ""),
    lambda root, rng: toggle(root, f"extra/{rng.choice('xyz')}.cfg", str(rng.random())),
    lambda root, rng: toggle(root, f"data/{rng.choice('kl')}/{rng.choice('mn')}.dat", str(rng.random())),
    lambda root, rng: write(
        root, ".gitignore", rng.choice(["*.log\n", "*.log\n*.dat\n", "*.log\nnotes.md\n", "*.log\npkg/\n", "!*.log\n"])
    ),
    lambda root, rng: toggle(root, ".flyteignore", rng.choice(["*.cfg\n", "data/\n"])),
    lambda root, rng: write(root, "notes.md", str(rng.random())),
    lambda root, rng: write(root, "main.py", MAIN + f"# {rng.randrange(99)}\n"),
    same_size_and_time,
    replaced,
    shadow,
    become_package,
    executable,
    linked,
    variable,
]
IDLE: list[Callable[[Path, random.Random], object]] = [
    lambda root, rng: (root / rng.choice(["helper.py", "notes.md", "settings.json", "main.py"])).touch(),
    lambda root, rng: write(root, "__pycache__/helper.cpython-311.pyc", str(rng.random())),
    lambda root, rng: write(root, "node_modules/x/index.js", str(rng.random())),
    lambda root, rng: write(root, ".venv/pyvenv.cfg", str(rng.random())),
    lambda root, rng: (root / "helper.py").write_text((root / "helper.py").read_text()),
    lambda root, rng: (root / "notes.md").chmod((root / "notes.md").stat().st_mode ^ 0o004),
    lambda root, rng: os.environ.update(EDIT_UNREAD=str(rng.random())),
    lambda root, rng: (root / rng.choice(["empty1", "empty2"])).mkdir(exist_ok=True),
]


def resolve(root: Path, home: Path, style: CopyStyle) -> tuple[dict[str, Any], str | None, list[str]]:
    """What discovery found, the tree's digest, and the kinds of what was made."""
    cache = Cache(str(home), Counters(), pytest.fail)
    preparation = Preparation(Project.of(str(root), "main.py"), style, cache, Counters(), said=pytest.fail)
    preparation.discover()
    outcomes = preparation.resolve()
    made = [outcome.node.kind for outcome in preparation.outcomes if outcome.state == "made"]
    tree = outcomes[preparation.tree].artifact
    cache.database.close()
    return preparation.discovery.document, tree, made


@pytest.fixture
def environment() -> Iterator[None]:
    """The environment variables as they were, afterwards."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("style", ["loaded_modules", "all"])
def test_a_warm_resolve_agrees_with_a_clean_one_after_any_edit(tmp_path: Path, style: CopyStyle) -> None:
    """Whatever was edited, nothing stale is used; and where nothing that counts was edited, nothing is made."""
    seed = int(os.environ.get("FLYTE_TEST_SEED", "0")) or random.randrange(10**9)
    rng = random.Random(seed)
    root = tmp_path.resolve() / "project"
    make_project(root)
    resolve(root, tmp_path / "warm", style)
    history = []
    for at in range(EDITS // 2):
        idle = rng.random() < 0.25
        edit = rng.choice(IDLE if idle else COUNTING)
        edit(root, rng)
        history.append(getattr(edit, "__name__", "") + f":{edit.__code__.co_firstlineno}")  # type: ignore[attr-defined]  # Functions all.
        document, tree, made = resolve(root, tmp_path / "warm", style)
        where = f"seed {seed}, edit {at}, after {history[-5:]}"
        if idle:
            assert not made, f"made {made} although nothing counts: {where}"
        clean_document, clean_tree, _ = resolve(root, tmp_path / "clean", style)
        shutil.rmtree(tmp_path / "clean")
        assert document == clean_document, where
        assert tree == clean_tree, where
