"""The engines that the actions of a run share."""

from __future__ import annotations

import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyte_build.declarations.describe import task_spec
from flyte_build.declarations.environment import TaskEnvironment
from flyte_build.ops.engines import Engines
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.runner.action import Action
from flyte_build.runner.call import Call, RunOptions
from flyte_build.runner.controller.outcome import outcome
from flyte_build.runner.engines.poll import wait_for
from flyte_build.runner.result import Result
from flyte_build.runner.worker.spawn import Worker, start_worker
from flyte_build.settings.configuration import Configuration
from flyte_build.settings.places import Places
from flyte_build.settings.settings import Settings
from flyte_build.workspace.workspace import Workspace
from tests.support.caches import Recorder

TASKS = """
import sys, flyte
env = flyte.TaskEnvironment(name="e")

@env.task
def prefix() -> str:
    return sys.prefix
"""
env = TaskEnvironment(name="e")


@env.task
def prefix() -> str:
    raise AssertionError("It runs from the bundle only")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A session with stores of its own."""
    places = Places(cache=f"{tmp_path}/cache", data=f"{tmp_path}/data", config="")
    stores = Stores(Recorder(), places)
    yield Session(Settings.configured(Configuration({}), copy_style="all"), stores)
    stores.close()


def test_an_action_runs_in_its_own_environment_whichever_begins_first(
    session: Session, tmp_path: Path
) -> None:
    """A worker that was started early is for actions of its environment only."""
    (tmp_path / "bundle/code").mkdir(parents=True)
    (tmp_path / "bundle/code/tasks.py").write_text(TASKS)
    call = Call(
        task=task_spec(prefix),
        workspace=Workspace("", "tasks.py", "tasks"),
        variable="prefix",
        inputs={},
        run=RunOptions("p", "d", "all"),
        code=f"{tmp_path}/bundle",
    )
    spares = list[Worker]()

    def take_spare() -> Worker:
        spares.append(start_worker())
        return spares[-1]

    engines, found = Engines(session, take_spare), list[Action]()
    for name in ("one", "other"):
        venv.create(tmp_path / name / "venv", symlinks=True)
        own, engine = engines.engine(call._replace(environment=f"{tmp_path}/{name}"), None)
        found.append(Action(id=name, run="r", folder=f"{tmp_path}/actions/{name}", call=own))
    for action in reversed(found):
        engine.submit(action)
        events = engine.events()
        while not events:
            wait_for([engine.waits()])
            events = engine.events()
        expected = {"o0": f"{action.call.environment}/venv"}
        assert outcome(action, events[0]) == Result("succeeded", expected)
    engines.close()
    assert len(spares) == 1
