"""Running tasks from Python."""

from __future__ import annotations

import subprocess
import sys

from tests.command import Shell


def test_a_script_prepares_and_runs(flyte: Shell) -> None:
    """`python my_example.py`, initialised and not, and the local mode."""
    script = """
import flyte
from dataclasses import dataclass
@dataclass
class Point:
    x: int
env = flyte.TaskEnvironment(name="script")
@env.task
async def move(point: Point, by: int = 1) -> Point:
    return Point(point.x + by)
if __name__ == "__main__":
    print(flyte.run(move, Point(0)))
    flyte.init_from_config()
    run = flyte.run(move, point=Point(1), by=2)
    print(f"Result: {run}", run.url.startswith("file://"), run.phase, isinstance(run.outputs()[0], Point))
    print(flyte.with_runcontext(mode="local").run(move, Point(5)).outputs().to_dict())
    try:
        flyte.run(move, by="x", point=Point(1))
    except flyte.errors.InputError as error:
        print(error.what)
"""
    (flyte.project / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=flyte.project, env=flyte.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "Point(x=1)",
        "Result: Point(x=3) True succeeded True",
        "{'o0': Point(x=6)}",
        "The input 'by' cannot be 'x'",
    ]
    assert len(flyte.json("get", "run")) == 3
