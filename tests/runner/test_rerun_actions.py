"""Running one action of an earlier run alone."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from tests.support.command import Shell

WEATHER = """
import flyte

env = flyte.TaskEnvironment(name="weather")

@env.task
async def fetch(city: str, days: int = 2) -> str:
    if city == "Rome":
        raise ValueError("no Rome")
    return f"{city} {days}"
"""
TRIP = """
import asyncio, flyte, weather

env = flyte.TaskEnvironment(name="trip", depends_on=[weather.env])

@flyte.trace
async def step() -> int:
    return 1

@env.task
async def pack(n: int) -> int:
    return n

@env.task
async def main() -> int:
    await step()
    await asyncio.gather(*(weather.fetch(city) for city in ("Bern", "Rome")), return_exceptions=True)
    return await pack(3)
"""


@pytest.fixture
def trip(flyte: Shell) -> Shell:
    """A project with a pipeline of two modules."""
    (flyte.project / "weather.py").write_text(WEATHER)
    (flyte.project / "trip.py").write_text(TRIP)
    return flyte


def actions(trip: Shell) -> tuple[str, dict[str, str]]:
    """Run the pipeline, and return the run's name, and its actions by task and phase."""
    run = trip.json("run", "trip.py", "main")["run"]
    found: list[dict[str, Any]] = trip.json("get", "run", run)["actions"]
    return run, {f"{each['task']} {each['phase']}": each["name"] for each in found}


def test_a_child_runs_again_as_a_run_of_its_own(trip: Shell) -> None:
    """It has the inputs that it had, or others; tasks of other modules, and its own reruns, too."""
    run, found = actions(trip)
    assert trip("rerun", "--action-name", found["trip.pack succeeded"], run).stdout == "3\n"
    again = trip.json("rerun", "--action-name", found["weather.fetch failed"], run, exit_code=1)
    assert again["error"]["message"] == "no Rome"
    assert trip("rerun", again["run"], "--city", "Oslo").stdout == "Oslo 2\n"
    short = found["weather.fetch succeeded"][:6]
    local = trip("rerun", "--action-name", short, run, "--days", "5")
    assert local.stdout == "Bern 5\n"
    rows = trip.json("get", "run", "--task-name", "weather.fetch")
    assert len(rows) == 3


def test_actions_that_cannot_run_alone_are_refused(trip: Shell) -> None:
    """Traces belong to their callers; what is recovered, or as it was then, is a whole run."""
    run, found = actions(trip)
    pack = found["trip.pack succeeded"]
    refused = [
        (("--action-name", found["trip.step succeeded"], run), 2, "It is a trace"),
        (("--action-name", pack, "--recover", run), 2, f"flyte rerun {run} --recover"),
        (("--action-name", pack, "--as-then", run), 2, "Leave out `--as-then`"),
        (("--action-name", "b1", run), 4, f"flyte get action {run}"),
    ]
    for arguments, code, told in refused:
        assert told in trip("rerun", *arguments, exit_code=code).stderr
    (trip.project / "trip.py").write_text(TRIP.replace("def pack", "def packs"))
    assert "trip.pack" in trip("rerun", "--action-name", pack, run, exit_code=4).stderr


def test_a_child_of_a_deployed_run_and_from_python(trip: Shell) -> None:
    """It is the task of the same deployment; `flyte.rerun` does the same."""
    trip("deploy", "--version", "v1", "trip.py", "env")
    (trip.project / "weather.py").write_text("raise SystemExit")
    run = trip.json("run", "deployed-task", "trip.main:v1")["run"]
    found = trip.json("get", "run", run)["actions"]
    name = next(each["name"] for each in found if each["task"] == "trip.pack")
    assert trip.json("rerun", "--action-name", name, run)["outputs"] == {"o0": 3}
    code = f"import flyte; print(flyte.rerun({run!r}, action_name={name!r}, n=4).outputs()[0])"
    python = replace(trip, program=(sys.executable, "-c", code))
    assert python().stdout == "4\n"
