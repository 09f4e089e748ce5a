"""Engines of one run: one for processes, and one for the containers of each image."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import cached_property
from typing import TYPE_CHECKING

from flyte_build.runner.action import CONDITION, Action
from flyte_build.runner.call import Call
from flyte_build.runner.engines.process import ProcessEngine
from flyte_build.runner.secrets import Secrets, look_up
from flyte_build.runner.worker.spawn import Worker, start_worker
from flyte_build.text.wording import listed

from .session import Session

if TYPE_CHECKING:
    from flyte_build.runner.engines.docker import DockerEngine
    from flyte_build.runner.engines.fork_servers import ForkServers
    from flyte_build.runner.engines.protocol import Engine
    from flyte_build.runner.engines.worker_process import WorkerProcess

    from .container_images import ContainerImage


class Engines:
    """Engines that are made at their first use, and closed together.

    `take_spare` returns a worker in the current interpreter that was started early, or None.
    """

    def __init__(self, session: Session, take_spare: Callable[[], Worker | None]) -> None:
        self._session, self._take_spare = session, take_spare
        self._lock = threading.Lock()
        self._spare: tuple[str, Worker] | None = None  # With its local environment.
        self._process: ProcessEngine | None = None
        self._docker: dict[str, DockerEngine] = {}

    def engine(self, call: Call, container: ContainerImage | None) -> tuple[Call, Engine]:
        """Return a call with its secrets, and the engine that runs it.

        It runs in `container`, or in a process if that is None. This may be called in any thread.
        Raises `PreparationError` for a missing secret, and `EngineUnavailable`.
        """
        with self._lock:
            return self._engine(call, container)

    def _engine(self, call: Call, container: ContainerImage | None) -> tuple[Call, Engine]:
        if call.task.semantic.environment == CONDITION:
            return call, self._conditions
        secrets = look_up(call.task.operational.options.get("secrets"), os.environ)
        call = call._replace(secrets=secrets)
        if container is None:
            return call, self._for_processes(call, secrets)
        if container.reference not in self._docker:
            from .container_images import docker_engine

            self._docker[container.reference] = docker_engine(self._session, container)
        return call, self._docker[container.reference]

    @cached_property
    def _conditions(self) -> Engine:
        from flyte_build.builtin import condition
        from flyte_build.runner.engines.conditions import ConditionEngine

        at_terminal = os.isatty(0) and os.isatty(2)
        return ConditionEngine(self._session.reporter.note, condition.parse, at_terminal)

    def _for_processes(self, call: Call, secrets: Secrets) -> ProcessEngine:
        if secrets.files:
            self._session.reporter.note(
                f"{listed(list(secrets.files))}: secrets in files are only available in containers"
                " (`flyte run --engine docker`)."
            )
        if self._process is None:
            self._take(call)
            self._process = ProcessEngine(self._session.reporter, self._start)
        return self._process

    def _take(self, call: Call) -> None:
        """Have a worker for a call before the call begins; it starts while the run is recorded."""
        spare = self._take_spare()
        if spare and call.environment:
            spare.dismiss()
            spare = None
        if call.environment:
            with suppress(OSError):  # The engine will start it, and report the error.
                spare = start_worker(*self._interpreter(call.environment))
        if spare:
            self._spare = call.environment, spare

    def _start(self, action: Action) -> WorkerProcess:
        """Return the spare worker for the root, and one that is forked, if possible, for others."""
        call = action.call
        environment, spare = self._spare or ("", None)
        self._spare = None
        if spare and action.parent is None and environment == call.environment:
            return spare
        if spare:
            spare.dismiss()
        python, variables = self._interpreter(call.environment)
        if action.parent is None:
            return start_worker(python, variables)
        forked = self._servers and self._servers.fork(python, variables, call)
        return forked or start_worker(python, variables, sends_result=True)

    def _interpreter(self, environment: str) -> tuple[str, Mapping[str, str]]:
        """Return the Python of a local environment, and the variables of a worker in it."""
        if not environment:
            return sys.executable, os.environ
        from flyte_build.images.environments import venv

        runtime = self._session.stores.runtime
        return venv.python_of(environment), venv.variables(environment, runtime, os.environ)

    @cached_property
    def _servers(self) -> ForkServers | None:
        from flyte_build.runner.engines.fork_servers import ForkServers, can_fork

        return ForkServers() if can_fork() else None

    def close(self) -> None:
        """Kill everything that is left."""
        with ExitStack() as closing:  # Whatever fails, the others are closed.
            for engine in self._docker.values():
                closing.callback(engine.close)
            if servers := vars(self).get("_servers"):
                closing.callback(servers.close)
            if self._process:
                closing.callback(self._process.close)
            if self._spare:
                closing.callback(self._spare[1].dismiss)
                self._spare = None
