"""Children of a run: the places of the tasks that its tasks call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flyte_build.runner.call import Call
from flyte_build.runner.child import ChildRequest
from flyte_build.runner.engines.protocol import Engine

from .engines import Engines

if TYPE_CHECKING:
    from .container_images import ContainerImage
    from .ready_deployments import ReadyDeployments

    PlaceOwn = Callable[[Call, ChildRequest], tuple[Call, ContainerImage | None]]
    """Returns the call of a task of the caller's own file, and the image of its container."""


class RunPlaces:
    """Places of children: deployed tasks, and those of the run's own file with `place_own`."""

    def __init__(
        self, engines: Engines, deployed: ReadyDeployments, place_own: PlaceOwn | None = None
    ) -> None:
        self._engines, self._deployed, self._place_own = engines, deployed, place_own

    def place(self, parent: Call, request: ChildRequest) -> tuple[Call, Engine]:
        """Return the call of a child, given its parent's, and its engine. Raises `FlyteError`."""
        if request.is_condition:
            return self._engines.engine(child_call(parent, request), None)
        if not request.deployment and not parent.deployment:
            assert self._place_own is not None
            return self._engines.engine(*self._place_own(parent, request))
        task = (
            self._deployed.called(request.deployment, request.task)
            if request.deployment
            else self._deployed.beside(parent.deployment, request.task)
        )
        call, container = self._deployed.place(task, request.inputs, parent.run)
        return self._engines.engine(replace(call, context=request.context), container)

    def deployed(self, text: str, project: str, domain: str) -> Mapping[str, Any]:
        """Return the document of a deployed task. Raises `NotFound` and other errors of it."""
        return self._deployed.find(text, project, domain).details()


def child_call(parent: Call, request: ChildRequest) -> Call:
    """Return the call of a child, which has the code and the options of its parent."""
    return replace(
        parent,
        task=request.task,
        workspace=replace(parent.workspace, module=request.task.module or ""),
        variable=request.task.variable or "",
        inputs=request.inputs,
        context=request.context,
    )
