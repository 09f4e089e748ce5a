"""A project with two tasks, and a shell that deploys them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.command import Shell

TASKS = '''
import flyte
from lib import GREETING

env = flyte.TaskEnvironment(name="greet", resources=flyte.Resources(cpu=1, memory="1Gi"), env_vars={"A": "b"})

@env.task(retries=1)
def hello(name: str = "World") -> str:
    """Greet somebody.

    Args:
        name: Who is greeted.
    """
    return f"{GREETING}, {name}!"

@env.task
def reads() -> str:
    return open("nowhere.txt").read()
'''


class Deploying(Shell):
    """A shell whose commands know the place of deployments."""

    place: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **self.place}

    def deploy(self, *args: str) -> dict[str, Any]:
        (found,) = self.json("deploy", *args)["deployments"]
        assert isinstance(found, dict)
        return found

    def elsewhere(self, folder: Path) -> Deploying:
        """Return another machine, if there is a registry: an empty home, and a new directory."""
        folder.mkdir()
        other = Deploying(folder, folder / "home" if self.place else self.home)
        other.place = self.place
        return other


def write(project: Path, old: str = "", new: str = "") -> None:
    (project / "tasks.py").write_text(TASKS.replace(old, new) if old else TASKS)
    (project / "lib.py").write_text("GREETING = 'Hello'\n")
