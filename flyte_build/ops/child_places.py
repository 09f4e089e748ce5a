"""Children of a run: the places of the tasks that its tasks call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flyte_build.images.image_choice import ImageChoice
from flyte_build.runner.call import Call
from flyte_build.runner.child import ChildRequest
from flyte_build.runner.engines.protocol import Engine

from .engines import Engines

if TYPE_CHECKING:
    from flyte_build.declarations.spec import TaskSpec

    from .environments import PreparedEnvironments
    from .ready_deployments import ReadyDeployments


class RunPlaces:
    """Places of children: deployed tasks, and those of the run's own file.

    The latter are in `environments`, and `image` returns the image for a declared one.
    """

    def __init__(
        self,
        engines: Engines,
        deployed: ReadyDeployments,
        environments: PreparedEnvironments | None = None,
        image: Callable[[Any], ImageChoice] = ImageChoice,
    ) -> None:
        self._engines, self._deployed = engines, deployed
        self._environments, self._image = environments, image
        self._tasks: dict[str, tuple[TaskSpec, TaskSpec]] = {}  # Of the last call of each name.

    def place(self, parent: Call, request: ChildRequest) -> tuple[Call, Engine]:
        """Return the call of a child, given its parent's, and its engine. Raises `FlyteError`."""
        if request.is_condition:
            return self._engines.engine(child_call(parent, request), None)
        if not request.deployment and not parent.deployment:
            assert self._environments is not None
            child = child_call(parent, request)
            child = child._replace(task=self._placed(child.task))
            return self._engines.engine(*self._environments.place(child))
        task = (
            self._deployed.called(request.deployment, request.task)
            if request.deployment
            else self._deployed.beside(parent.deployment, request.task)
        )
        call, container = self._deployed.place(task, request.inputs, parent.run)
        call = call._replace(context=request.context, packages=request.packages)
        return self._engines.engine(call, container)

    def _placed(self, task: TaskSpec) -> TaskSpec:
        """Return a task with the image that is chosen for it: the same one for the same task."""
        known = self._tasks.get(task.name)
        if known is None or known[0] is not task:
            image = self._image(task.semantic.image).value
            known = self._tasks[task.name] = task, task.change(image=image)
        return known[1]

    def close(self) -> None:
        """Stop what is still prepared, and end the leases of deployments."""
        if self._environments:
            self._environments.stop()
        self._deployed.release()

    def deployed(self, text: str, project: str, domain: str) -> Mapping[str, Any]:
        """Return the document of a deployed task. Raises `NotFound` and other errors of it."""
        return self._deployed.find(text, project, domain).details()


def child_call(parent: Call, request: ChildRequest) -> Call:
    """Return the call of a child, which has the code and the options of its parent."""
    return parent._replace(
        task=request.task,
        workspace=parent.workspace._replace(module=request.task.module or ""),
        variable=request.task.variable or "",
        inputs=request.inputs,
        context=request.context,
        packages=request.packages,
    )
