"""Running: from a file and a task's name to a result. The only place that picks concrete stores and engines."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from flyte_build.cas.digest import Digest
from flyte_build.declarations.interface import Interface
from flyte_build.discovery.node import Discovery
from flyte_build.errors import FileUnstable, UsageError
from flyte_build.graph.node import Node, Outcome
from flyte_build.graph.reporter import Listener
from flyte_build.runner.call import Call
from flyte_build.runner.controller.controller import Finished, carry_out
from flyte_build.settings.settings import Settings
from flyte_build.text.wording import listed, printable
from flyte_build.workspace.workspace import Project, current_folder

from .placement import Placement, place
from .prepare import Preparation
from .session import Stores
from .sharing import Sharing

if TYPE_CHECKING:
    from flyte_build.bundler.tree import Entry
    from flyte_build.declarations.task import Task
    from flyte_build.runner.worker.spawn import Worker

    from .container_images import ContainerImage, ContainerImages

_ATTEMPTS = 3  # At preparing a project that is edited meanwhile.


class Runner:
    """Prepares and runs the tasks of one file."""

    def __init__(
        self,
        project: Project,
        settings: Settings,
        stores: Stores,
        listener: Listener,
        *,
        dry: bool = False,
        spare: "Callable[[], Worker | None]" = lambda: None,
    ) -> None:
        if settings.run.copy_style == "none" and not settings.run.version:
            raise UsageError(
                "`--copy-style none` needs a `--version`",
                why="Without the code nothing tells one version from another.",
                hint="Add `--version v1`, or leave out `--copy-style none`.",
            )
        self.project, self.settings, self.stores, self.listener = project, settings, stores, listener
        self._spare = spare
        self.sharing = Sharing(
            settings.registries, stores.cache, stores.counters, settings.run.project, listener.said, listener.transferred
        )
        self.preparation = Preparation(
            project,
            settings.run.copy_style,
            stores.cache,
            stores.counters,
            remake=settings.remake,
            dry=dry,
            said=listener.said,
            watch=listener.resolved,
            begun=listener.begun,
            progress=listener.progress,
            allowed=settings.allow_secrets,
            budget=settings.budget,
            elsewhere=self.sharing if settings.registries.reads else None,
            locked=settings.locked,
            images=settings.images,
            builder=settings.builder,
        )

    def discover(self) -> Discovery:
        """The tasks of the file."""
        with self.stores.cache.preparing():
            return self.preparation.discover()

    def list_bundle(self) -> dict[str, Any]:
        """What the bundle holds and what is kept out, as JSON values; the caller holds the cache. Makes the bundle."""
        from flyte_build.bundler import packs

        self.preparation.discover()
        outcomes = self.preparation.resolve()
        node = self.preparation.tree
        tree, record = node.tree(), outcomes[self.preparation.bundle].record
        assert record is not None
        blobs = self.stores.cache.blobs
        shown = self.preparation.discovery.project.shown
        layers, parts = record.refs[3:-1], packs.cut(tree.sizes())
        counts = list(map(len, parts)) if len(parts) == len(layers) else [None] * len(layers)  # Another machine may have cut it otherwise.
        return {
            "digest": tree.digest,
            "files": [
                {
                    "path": _text(entry.path),
                    "size": entry.size,
                    "digest": _content(entry),
                    "executable": entry.kind == "x",
                    **({"from": printable(source)} if (source := shown(entry.name)) != entry.name else {}),
                }
                for entry in tree.entries
            ],
            "packs": [
                {"digest": layer, "size": os.path.getsize(blobs.path(layer)), "files": count}
                for layer, count in zip(layers, counts, strict=True)
            ],
            "excluded": [{"path": path, "rule": rule} for scan in node.scans for path, rule in scan.excluded() if not node.holds(path)],
        }

    def run(self, variable: str, inputs: Mapping[str, Any]) -> Finished:
        """Run the task under `variable` with wire inputs; the run is in the history from its start to its end.

        It is prepared and runs in a process of its own, unless the settings say `local`: then it runs here, from the working tree.
        What was prepared is published meanwhile; `finish` waits for that.
        """
        if self.settings.engine == "local":
            from flyte_build.runner.worker.execute import load_task

            call, here = self._call(variable, inputs), self.project
            current = current_folder()  # As discovery has it: the last place where a module is looked for.
            sys.path[:] = dict.fromkeys(filter(None, [*here.folders(here.roots), *sys.path, *here.folders(here.last), current]))
            return run_here(call, lambda: load_task(call.project.module, variable), self.stores, self.listener)
        return self._run_prepared(variable, inputs)

    def _call(self, variable: str, inputs: Mapping[str, Any]) -> Call:
        task = self.preparation.discovery.task(variable)
        task = {**task, "image": self.preparation.image(task)}
        project = self.preparation.discovery.project
        return Call(task=task, project=project, variable=variable, inputs=inputs, run=self.settings.run)

    def _resolve(self, variable: str, inputs: Mapping[str, Any]) -> tuple[Call, Placement, Mapping[Node, Outcome]]:
        """Resolve what a call needs; from the start if files are edited meanwhile. Raises `FileUnstable` if that does not end."""
        preparation, engine = self.preparation, self.settings.engine
        for left in range(_ATTEMPTS - 1, -1, -1):
            call = self._call(variable, inputs)
            image, where = call.task["image"], Placement()
            if image != "auto" or engine == "docker":
                where = place(call.task["environment"], image, engine, partial(preparation.environment, image))
            try:
                return call, where, preparation.resolve(*([where.environment] if where.environment else []))
            except FileUnstable as error:
                if not left:
                    raise
                self.listener.said(f"{error.what}; it is prepared again.")
            preparation.start_over()
            interface = preparation.discover().task(variable)["interface"]
            if interface != call.task["interface"]:
                inputs = Interface.from_document(interface).check_inputs(dict(inputs))
        raise AssertionError("The last attempt returns or raises")

    def _run_prepared(self, variable: str, inputs: Mapping[str, Any]) -> Finished:
        cache, began, preparation = self.stores.cache, time.monotonic(), self.preparation
        with cache.preparing():
            call, where, outcomes = self._resolve(variable, inputs)
            if where.why:
                self.listener.said(f"{call.task['environment']} runs in a container: {where.why}.")
            needed = [where.environment] if where.environment else []
            code, container = preparation.extracted(), None
            if where.image is not None:
                container = self._container_images.get(where.image, call.task["environment"])
            tree = outcomes[preparation.tree].artifact
            assert tree is not None
            made = [artifact for node in needed if (artifact := outcomes[node].artifact)]
            lease = cache.lease([tree, *made, *runtime_held(self.stores, bool(container or needed))])
            if where.environment:
                call = replace(call, environment=cache.environment(*made), variables=where.environment.variables)
        self.publish()
        prepared = replace(call, run=replace(call.run, version=call.run.version or tree.short), code=code, tree=tree)
        try:
            if container:
                return run_in_container(prepared, self.stores, self.listener, container, self.settings.network, began)
            return run_in_worker(prepared, self.stores, self.listener, self._spare(), began)
        finally:
            lease.release()

    @cached_property
    def _container_images(self) -> "ContainerImages":
        from .container_images import ContainerImages

        return ContainerImages(self.project.root, self.settings, self.stores, self.listener, lambda: self.preparation.pins)

    @property
    def outcomes(self) -> list[Outcome]:
        """All that was resolved, in order."""
        images = self._container_images.outcomes if "_container_images" in self.__dict__ else []
        return [*self.preparation.outcomes, *images]

    def publish(self) -> None:
        """Begin to publish what was prepared; `finish` waits for it."""
        self.sharing.publish(self.preparation.shareable())

    def finish(self) -> None:
        """Wait until what was prepared is published, which has gone on while the task ran."""
        if "_container_images" in self.__dict__:
            self._container_images.publish()
        if published := self.sharing.finish():
            self.listener.published(str(self.settings.registries.write), len(published))


def run_in_worker(call: Call, stores: Stores, listener: Listener, spare: "Worker | None", began: float) -> Finished:
    """Run a task whose code is at hand in a process of its own."""
    from flyte_build.runner.engines.process import ProcessEngine
    from flyte_build.runner.worker.spawn import dismiss, start_worker

    start = start_worker
    if call.environment:
        start = partial(start_worker, *_interpreter(call.environment, stores))
        other, spare = spare, start()  # It begins while the run is written down.
        if other:
            dismiss(other)
    engine = ProcessEngine(listener.output, spare, start, _secrets(call, listener))
    try:
        return carry_out(call, engine, stores.history, listener, began)
    finally:
        engine.close()


def _secrets(call: Call, listener: Listener) -> Mapping[str, str]:
    """The variables of the secrets that a task asks for. Of those in files it is said that they are not there."""
    if not (declared := call.task["options"].get("secrets")):
        return {}
    from flyte_build.runner.secrets import look_up

    found = look_up(declared, os.environ)
    if found.files:
        files = listed(list(found.files))
        listener.said(f"{files}: secrets in files are only in containers: `flyte run --engine docker`.")
    return found.variables


def _interpreter(environment: str, stores: Stores) -> tuple[str, dict[str, str]]:
    """The Python of a local environment, and the variables of a worker in it."""
    from flyte_build.images.environments import venv

    return venv.python_of(environment), venv.variables(environment, stores.runtime, os.environ)


def runtime_held(stores: Stores, is_used: bool) -> list[Digest]:
    """What keeps the runtime from being collected, if a task is to use it: a lease is to hold it."""
    return [Digest("sha256:" + os.path.basename(stores.runtime))] if is_used else []


def run_in_container(call: Call, stores: Stores, listener: Listener, image: "ContainerImage", network: str, began: float) -> Finished:
    """Run a task whose code is at hand in a container."""
    from .container_images import docker_engine

    engine = docker_engine(call, stores, image, network, listener.output)
    try:
        return carry_out(call, engine, stores.history, listener, began)
    finally:
        engine.close()


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _content(entry: "Entry") -> str:
    return Digest.of(entry.content) if entry.kind == "l" else f"sha256:{entry.content.decode()}"


def run_here(call: Call, load: "Callable[[], Task[..., Any]]", stores: Stores, listener: Listener) -> Finished:
    """Run the task that `load` gives in this process, from the working tree; nothing is prepared."""
    from flyte_build.runner.engines.local import LocalEngine

    return carry_out(call, LocalEngine(load), stores.history, listener, time.monotonic())


def script_call(inputs: Mapping[str, Any], timeout: float | None, settings: Settings) -> Call:
    """The call that runs a plain script: `inputs` are those of `script.script`, `timeout` is in seconds. Raises `UsageError`."""
    from flyte_build.builtin.script import __name__ as module
    from flyte_build.builtin.script import script
    from flyte_build.discovery.describe import describe_task

    path = inputs["path"]
    if not os.path.isfile(path):
        raise UsageError(f"There is no script {path}", hint="Give a Python file: `flyte run python-script SCRIPT`.")
    project = Project(os.path.dirname(path), os.path.basename(path), module)
    task = describe_task(script.override(timeout=timeout))
    return Call(task=task, project=project, variable="script", inputs=inputs, run=settings.run)
