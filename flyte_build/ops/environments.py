"""Environments of a run's tasks: those that can be reached are prepared before the run begins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from flyte_build.cas.digest import Digest
from flyte_build.graph.node import Node, Outcome
from flyte_build.images.image_choice import ImageChoice
from flyte_build.runner.call import Call

from .placement import Placement, ReadyPlace, place
from .session import Session

if TYPE_CHECKING:
    from flyte_build.cas.lease import Lease
    from flyte_build.images.environments.node import EnvironmentNode

    from .container_images import ContainerImage, ContainerImages

Resolve = Callable[[Sequence[Node]], Mapping[Node, Outcome]]


class PreparedEnvironments:
    """Environments of tasks, each prepared once, by their images.

    `node` returns the node of the local environment of an image, `containers` are the images for
    containers, and `resolve` resolves nodes that are asked for during the run.
    """

    def __init__(
        self,
        session: Session,
        node: Callable[[ImageChoice, str], EnvironmentNode],
        containers: Callable[[], ContainerImages],
        resolve: Resolve,
    ) -> None:
        self._session, self._node = session, node
        self._containers, self._resolve = containers, resolve
        self._placements: dict[str, tuple[str, Placement]] = {}
        self._ready: dict[str, ReadyPlace] = {}
        self._leases: list[Lease] = []
        self._lock = threading.Lock()
        self._late: Sequence[Node] = ()  # Nodes that are prepared during the run.

    def choose(self, images: Iterable[tuple[str, ImageChoice]]) -> list[Node]:
        """Choose the places of environments with these names and images.

        Returns the nodes that `settle` needs. Raises the errors of `place`.
        """
        nodes: list[Node] = []
        for name, image in images:
            if image.text not in self._placements:
                engine = self._session.settings.engine
                where = place(name, image, engine, partial(self._node, image, name))
                self._placements[image.text] = (name, where)
                if where.environment:
                    nodes.append(where.environment)
        return nodes

    def resolve(self, nodes: Sequence[Node]) -> Mapping[Node, Outcome]:
        """Resolve the nodes that `choose` returned."""
        return self._resolve(nodes) if nodes else {}

    def forget(self) -> None:
        """Forget the choices, because files were edited meanwhile."""
        self._placements.clear()

    def settle(self, outcomes: Mapping[Node, Outcome], trees: Iterable[Digest]) -> None:
        """Make all chosen places ready, given the outcomes of their nodes.

        A lease holds them, and `trees`, until `release`. Raises `ImageBuildError` and
        `EngineUnavailable`.
        """
        held, uses_runtime = [*trees], False
        for text, (name, where) in self._placements.items():
            if text in self._ready:
                continue
            if where.why:
                self._session.reporter.note(f"{name} runs in a container: {where.why}.")
            if where.image is not None:
                container = self._containers().get(where.image, name)
                self._ready[text], uses_runtime = ReadyPlace(container), True
            elif where.environment is not None:
                artifact = outcomes[where.environment].artifact
                assert artifact is not None
                held.append(artifact)
                folder = self._session.cache.environment(artifact)
                self._ready[text] = ReadyPlace(None, folder, where.environment.variables)
                uses_runtime = True
            else:
                self._ready[text] = ReadyPlace()
        if uses_runtime:
            held.append(self._session.stores.runtime_digest)
        self._leases.append(self._session.cache.lease(held))

    def place(self, call: Call) -> tuple[Call, ContainerImage | None]:
        """Return a call in its environment, with the image of its container, if it has one.

        An environment that was not prepared is prepared now. This may be called in any thread.
        Raises the errors of `choose` and `settle`.
        """
        image, name = ImageChoice(call.task.semantic.image), call.task.semantic.environment
        if image.text not in self._ready:
            with self._lock:
                self._prepare_late(name, image)
        return self._ready[image.text].of(call)

    def _prepare_late(self, name: str, image: ImageChoice) -> None:
        if image.text in self._ready:  # Another thread has prepared it meanwhile.
            return
        self._session.reporter.note(
            f"The environment {name} is prepared during the run. To prepare it before, add it"
            " to depends_on of the environment whose task calls it."
        )
        try:
            with self._session.cache.preparing():
                self._late = self.choose([(name, image)])
                self.settle(self.resolve(self._late), ())
        except BaseException:
            self._placements.pop(image.text, None)
            raise

    def stop(self) -> None:
        """Stop what is prepared during the run, from another thread."""
        for node in self._late:
            node.stop()

    def release(self) -> None:
        """End the leases."""
        for lease in self._leases:
            lease.release()
