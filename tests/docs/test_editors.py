"""Type checkers, and editors with them, know `flyte` and the types of a user's tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import flyte_build
from tests.support.checkout import CHECKOUT

BIN = os.path.dirname(sys.executable)
USER = '''
"""A file as a user writes it; where an error is wanted, it is ignored, and an ignored error that does not come is an error."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_type

import flyte
import flyte.errors
from flyte.remote import Run


@dataclass
class Point:
    x: int


env = flyte.TaskEnvironment(name="typed", resources=flyte.Resources(cpu=1, memory="1Gi"), env_vars={"A": "b"})
other = flyte.TaskEnvironment("other", depends_on=[env], image=flyte.Image.from_debian_base().with_pip_packages("numpy"))


@env.task
def double(point: Point, by: int = 2) -> Point:
    return Point(point.x * by)


@env.task(retries=flyte.RetryStrategy(2), timeout=timedelta(minutes=1), cache="auto")
async def shout(text: str) -> str:
    await asyncio.sleep(0)
    return text.upper()


@other.task
async def both(text: str) -> tuple[str, Point]:
    first = await shout(text)
    again, third = await asyncio.gather(shout("a"), shout.aio("b"))
    assert_type(again, str)
    assert_type(third, str)
    assert_type(await double.aio(Point(1)), Point)
    return first + again, await double.aio(Point(1), by=3)


async def main() -> None:
    run = await flyte.run.aio(shout, text="x")
    assert_type(run, Run)
    await run.wait.aio()
    async for line in run.get_logs.aio():
        assert_type(line, str)


if __name__ == "__main__":
    flyte.init_from_config()
    assert_type(double(point=Point(1)), Point)
    assert_type(double.override(retries=1)(Point(1)), Point)
    double(point="1")  # type: ignore
    double(Point(1), to=3)  # type: ignore
    double(Point(1)).y  # type: ignore
    shout.aio(1)  # type: ignore
    run = flyte.run(double, point=Point(1), by=2)
    assert_type(run, Run)
    print(run.name, run.url, run.phase, run.outputs()[0], run.outputs().to_dict())
    flyte.with_runcontext(mode="local", name="x").run(both, text="a")
    try:
        run.raise_for_status()
    except flyte.errors.RuntimeUserError as error:
        assert_type(error.code, str)
    for each in Run.listall(limit=3):
        print(each.details().started)
    asyncio.run(main())
'''
PYRIGHT = (
    '{"typeCheckingMode": "strict", "reportUnnecessaryTypeIgnoreComment": true,'
    ' "reportUnusedExpression": false}'
)


@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_a_users_file_passes_in_strict_mode(tmp_path: Path, checker: str) -> None:
    """Type checkers know tasks, sync and async, their results, and runs, and find wrong calls."""
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "pyrightconfig.json").write_text(PYRIGHT)
    options = {
        "mypy": ["--strict", "--cache-dir", os.devnull],
        "basedpyright": ["--pythonpath", sys.executable],
    }[checker]
    done = subprocess.run(
        [f"{BIN}/{checker}", *options, "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_file_that_is_checked_runs(tmp_path: Path) -> None:
    """The file that passes the type checkers also runs."""
    code = "\n".join(line for line in USER.splitlines() if "type: ignore" not in line)
    (tmp_path / "user.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "user.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_public_module_has_a_stub() -> None:
    """Every public module has a stub, so that `flyte.x` is `flyte_build.x` for type checkers."""
    import flyte

    modules = {name for name in flyte_build.__all__ if isinstance(getattr(flyte, name), type(sys))}
    assert {path.stem for path in (CHECKOUT / "stubs").glob("*.pyi")} == modules | {"__init__"}
