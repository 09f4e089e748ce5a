"""Terminal sessions in the documentation: commands print what the pages show.

Files are written and commands are run in the page's order and in one directory.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.bases import MadeWheel, push_image
from tests.support.bases import real_layer as real_layer
from tests.support.checkout import CHECKOUT
from tests.support.engines import Engine
from tests.support.registries import Server

HUMANIZE = b"def naturalsize(count):\n    return f'{count / 1e6:.1f} MB'\n"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
_BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.M | re.S)
_COMMAND = re.compile(r"^(?:(\w+))?\$ ([^\n]*)\n((?:(?!\w*\$ )[^\n]*\n)*)", re.M)
_RUN = re.compile(r"\brs[0-9a-z]{11}\b")


@dataclass
class Session:
    """A terminal in `folder`, which the page calls `shown`; each user has their own home.

    `replaced` maps strings of the page to those of this machine.
    """

    folder: Path
    shown: str
    variables: Mapping[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    run: str = ""

    def check(self, page: str) -> None:
        """Write the files and run the commands of a page (its text), and compare their output."""
        for kind, name, text in _BLOCK.findall(page):
            if kind == "python" and name:
                (self.folder / name).write_text(text, encoding="utf-8")
            for user, command, expected in _COMMAND.findall(text) if kind == "console" else ():
                printed = self._printed(user or "ann", command)
                for old, new in zip(_RUN.findall(expected), _RUN.findall(printed), strict=False):
                    self.replaced.setdefault(old, new)
                    self.run = new
                assert lasting(self._as_shown(printed)) == lasting(expected), command

    def _printed(self, user: str, command: str) -> str:
        for old, new in {"RUN": self.run, **self.replaced}.items():
            command = command.replace(old, new)
        path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        home = {"FLYTE_HOME": str(self.folder.parent / user), "PATH": path}
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={**os.environ, **self.variables, **home},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        ).stdout

    def _as_shown(self, printed: str) -> str:
        printed = printed.replace(str(self.folder), self.shown)
        for old, new in self.replaced.items():
            printed = printed.replace(new, old)
        return printed


def lasting(text: str) -> str:
    """Replace whatever differs between runs or machines.

    That is names of runs, times, sizes, digests and locations.
    """
    for pattern, name in {
        r"file://\S+/": "file://",
        _RUN.pattern: "RUN",
        r"Python 3\.\d+": "Python 3.N",
        r"python:3\.\d+": "python:3.N",
        r"\b(?:linux|darwin)/\w+": "PLATFORM",
        r"\bsha256:[0-9a-f]{64}\b": "DIGEST",
        r"\bimage\.(\w+)\.[0-9a-f]{12}\b": r"image.\1.DIGEST",
        r" +\d[\d.,]* [kMG]?B  ": "  SIZE  ",
        r"\d{4}-\d\d-\d\dT[\d:.]+Z(?:\t\d+\.\d)?": "TIME",
        r"^ *[~^]+\n": "",  # Each version of Python marks other parts of a line.
        r"  \d+\.\d\d s$|[ \t]+$": "",
    }.items():
        text = re.sub(pattern, name, text, flags=re.M)
    return text


@pytest.mark.parametrize("page", ["tutorial", "migrating", "deployments"])
def test_a_page_of_the_documentation(tmp_path: Path, page: str) -> None:
    (tmp_path / "project").mkdir()
    session = Session(tmp_path / "project", "/home/ann/weather")
    session.check((CHECKOUT / "docs" / f"{page}.md").read_text(encoding="utf-8"))


def test_the_readme(tmp_path: Path, registry: Server, engine: Engine, real_layer: Path) -> None:
    """The README's session works.

    It has a registry, the packages and the base that it names, and a container engine.
    """
    demo = tmp_path / "demo"
    shutil.copytree(CHECKOUT / "examples", demo / "examples")
    wheel = MadeWheel("humanize", "4.17.0", {"humanize/__init__.py": HUMANIZE})
    wheel.write(tmp_path / "wheels")
    (demo / "flyte.toml").touch()
    push_image(registry.repository("python"), [real_layer], tag="3.11", media_type=GZIP)
    variables = {
        "DOCKER_HOST": engine.host,
        "FLYTE_IMAGE_BASE": f"{registry.repository('python')}:3.11",
        "UV_FIND_LINKS": str(tmp_path / "wheels"),
        "UV_NO_INDEX": "1",
    }
    session = Session(demo, "/home/ann/demo", variables, {"registry.example.com": registry.host})
    session.check((CHECKOUT / "README.md").read_text(encoding="utf-8"))
