"""Running deployed tasks, without preparing anything and without source files."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from flyte_build.runner.controller.run import Finished, carry_out
from flyte_build.values.type import Wires

from .child_places import RunPlaces
from .deployed_task import DeployedTask
from .engines import Engines
from .ready_deployments import ReadyDeployments
from .session import Session

if TYPE_CHECKING:
    from flyte_build.runner.worker.spawn import Worker


def run_deployed(
    task: DeployedTask, session: Session, inputs: Wires, spare: Worker | None = None
) -> Finished:
    """Run a deployed task with wire inputs, with the settings of a session.

    Nothing is prepared; missing artifacts are fetched.
    """
    began, ready = monotonic(), ReadyDeployments(session)
    engines = Engines(session, lambda: spare)
    try:
        call, container = ready.place(task, inputs, session.settings.run)
        history, reporter = session.stores.history, session.reporter
        call, engine = engines.engine(call, container)
        return carry_out(call, engine, history, reporter, began, lambda: RunPlaces(engines, ready))
    finally:
        engines.close()
        ready.release()
