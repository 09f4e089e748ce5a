"""The `docker` engine: attempts run in containers, which end with the command.

The image does not have to contain this package; it needs Python 3.11 or newer as `python3`. The
code, the runtime (this package, in pure Python) and the action's directory are mounted. The worker
reads its order from standard input, so the values of variables and secrets are not part of the
container's configuration.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

from flyte_build.cas.os_errors import storing
from flyte_build.errors import EngineUnavailable
from flyte_build.images.docker.client import asking
from flyte_build.runner.action import Action
from flyte_build.runner.result import Result

from .container_ends import advised, ended
from .containers import CHECK, Containers, Place, close, is_readable, open_to_all, order_in, seen
from .forking_containers import ForkingContainers
from .output import Output, output_of
from .protocol import Event, Sink, Waits
from .workers import Workers

if TYPE_CHECKING:
    from docker import APIClient

_ACTION = "/opt/flyte/action"
_CHUNK = 1 << 16
_START = (
    CHECK
    + """
os.dup2(0, 3)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
from flyte_build.runner.worker.main import main
main()
"""
)


class DockerEngine:
    """Engine that runs attempts in containers of one `place`; `sink` receives the output.

    The root has a container of its own, and so have children if `shares` is false. Otherwise a
    container forks one worker after another.
    """

    name = "docker"
    runs_here = False
    acts_on = frozenset(("retries", "timeout", "env_vars", "resources", "secrets", "reusable"))

    def __init__(self, place: Place, sink: Sink, client: APIClient, *, shares: bool) -> None:
        self._sink, self._client = sink, client
        self._running: dict[tuple[str, int], _Container] = {}
        self._containers = Containers(place, client)
        self._forks = ForkingContainers(self._containers) if shares else None
        self._workers = Workers(self._forks, sink) if self._forks else None

    def submit(self, action: Action) -> None:
        """Begin an attempt, unless it has begun already (same action, same attempt).

        Raises `EngineUnavailable` and `StoreUnavailable`.
        """
        if (action.id, action.attempt) in self._running:
            return
        if self._forks and self._workers and action.parent and self._forks.can_start(action):
            self._workers.submit(action)
        else:
            self._begin(action)

    def _begin(self, action: Action) -> None:
        """Begin an attempt in a container of its own."""
        with storing("write an action"):
            seen(action).write()
            os.chmod(f"{action.folder}/action.json", 0o644)
            open_to_all(action)
            output = output_of(action, self._sink)
        order = json.dumps(order_in(action, _ACTION)).encode() + b"\n"
        try:
            id, socket = self._containers.start(action, [_START], (action.folder, _ACTION), order)
        except BaseException:
            output.close()
            raise
        self._running[action.id, action.attempt] = _Container(id, action, socket, output)

    def waits(self) -> Waits:
        """Return the output of containers, and the readers of held output."""
        containers = self._running.values()
        read = [each.socket.fileno() for each in containers if not each.output.is_held]
        write = [each.output.descriptor for each in containers if each.output.is_held]
        if not self._workers:
            return Waits(read, write)
        waits = self._workers.waits()
        return Waits([*read, *waits.read], [*write, *waits.write], waits.seconds)

    def events(self) -> list[Event]:
        """Pass on output, and return the attempts that have ended, without waiting."""
        found = []
        for container in list(self._running.values()):
            container.pass_on()
            if container.ended and not container.output.is_held:
                found.append(self._ended(container))
        for event in self._workers.events() if self._workers else ():
            if event.has_begun or event.kind != "lost":
                found.append(event)
            else:  # This image or engine has no room for a fork server; this tells why.
                assert self._forks
                self._forks.give_up(event.action)
                self._begin(event.action)
        return found

    def _ended(self, container: _Container) -> Event:
        action = container.action
        result = None if container.is_asked else Result.read(action.folder)
        # Its streams are closed and its result is written: do not wait for the container's end.
        if result and result.error is None:
            self._forget(container)
            return Event(action, "succeeded", 0)
        if result:
            told = advised(action, result, f"{_ACTION}/work")
            if told is not result:
                told.write(action.folder)
        event = ended(self._client, container.id, action, cancelled=container.is_asked)
        self._forget(container)
        return event

    def cancel(self, action: Action, at_once: bool) -> None:
        """Ask the attempt and all its processes to end; kill them with `at_once`."""
        container = self._running.get((action.id, action.attempt))
        if container is None:
            if self._workers:
                self._workers.cancel(action, at_once)
            return
        container.is_asked = True
        try:
            with asking("stop a container"):
                self._client.kill(container.id, signal.SIGKILL if at_once else signal.SIGTERM)
        except EngineUnavailable:  # It ended meanwhile, or the engine is gone.
            return

    def running(self) -> list[Action]:
        """Return the attempts that have not ended."""
        own = [container.action for container in self._running.values()]
        return [*own, *(self._workers.running() if self._workers else ())]

    def close(self) -> None:
        """Kill and remove all remaining containers."""
        left = list(self._running.values())
        for container in left:
            self._forget(container)
        if self._workers and self._forks:
            self._workers.close()
            self._forks.close()
        self._containers.close(wait=bool(left))

    def _forget(self, container: _Container) -> None:
        container.close()
        del self._running[container.action.id, container.action.attempt]
        self._containers.remove(container.id)


class _Container:
    """A container that runs an attempt; `socket` carries its streams."""

    def __init__(self, id: str, action: Action, socket: Any, output: Output) -> None:
        self.id, self.action, self.socket, self.output = id, action, socket, output
        self.ended = self.is_asked = False

    def pass_on(self) -> None:
        """Pass on output; after it was asked to end, the reader is not waited for."""
        self.output.pass_on(leave=self.is_asked)
        if not (self.ended or self.output.is_held) and is_readable(self.socket.fileno()):
            self._read()
            if self.ended:
                self.output.end()
            self.output.pass_on(leave=self.is_asked)

    def _read(self) -> None:
        """Read one frame of its output."""
        from docker.utils.socket import next_frame_header, read

        try:
            stream, size = next_frame_header(self.socket)
            self.ended = stream < 0
            while size > 0:
                data = read(self.socket, min(size, _CHUNK))
                if not data:
                    self.ended = True
                    return
                self.output.take(stream, data)
                size -= len(data)
        except ConnectionError:  # The engine is gone.
            self.ended = True

    def close(self) -> None:
        """Close the log and the socket."""
        self.output.close()
        close(self.socket)
