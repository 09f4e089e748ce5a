"""Containers that fork one worker after another, for children of the same environment.

A fork server runs in each of them. It connects to a socket in the directory of the controller's
API, on which descriptors can be sent: the worker's output and result do not go through Docker.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections import defaultdict
from collections.abc import Hashable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flyte_build.errors import EngineUnavailable
from flyte_build.images.docker.client import asking
from flyte_build.runner.action import Action
from flyte_build.runner.result import Result
from flyte_build.runner.unix_socket import listen

from .container_ends import advised, ended
from .containers import API, CHECK, Containers, close, open_to_all, order_in, seen
from .fork_servers import received
from .forked import Forked, ForkServer
from .protocol import Event

if TYPE_CHECKING:
    from .worker_process import WorkerProcess

_ACTIONS = "/opt/flyte/actions"
_START = (
    CHECK
    + """
import socket
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect(sys.argv[1])
os.dup2(server.detach(), 3)
from flyte_build.runner.worker.fork_server import main
main()
"""
)
_CHUNK = 1 << 16


class ForkingContainers:
    """The place of workers that containers fork; see `Workplace`."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._servers: defaultdict[Hashable, list[ForkServer]] = defaultdict(list)
        self._unfit: set[Hashable] = set()  # Kinds whose servers end before they fork.

    def can_start(self, action: Action) -> bool:
        """Whether a container can fork workers for an action, as far as is known."""
        return bool(action.endpoint) and _kind(action) not in self._unfit

    def start(self, action: Action) -> Forked:
        """Return a worker in a container that has no other. Raises `EngineUnavailable`."""
        servers = self._servers[_kind(action)]
        server = next((each for each in servers if each.is_idle), None)
        self._forget_gone(servers)
        if server is None:
            call = seen(action).call
            channel = _Contained(self._containers, action)
            server = ForkServer(channel, call.env, call.sources, may_import=True)
            servers.append(server)
        server.use(action.call.packages)
        return server.fork()

    def _forget_gone(self, servers: list[ForkServer]) -> None:
        """Forget containers that have ended, unless it was not found yet that their workers did."""
        for server in [each for each in servers if each.is_gone and each.is_left]:
            servers.remove(server)
            server.close()

    def give_up(self, action: Action) -> None:
        """Start none for actions like this one any more: its container ended before it forked."""
        self._unfit.add(_kind(action))

    def prepare(self, folder: str) -> None:
        """Make the directory of an action, which the image's user may not be able to make."""
        for each in (os.path.dirname(folder), folder, f"{folder}/work"):
            with suppress(FileExistsError):
                os.mkdir(each)
            os.chmod(each, 0o777)

    def seen(self, action: Action) -> Action:
        """Return an action as its worker sees it."""
        return seen(action)

    def order(self, action: Action) -> dict[str, Any]:
        """Return what a worker is told."""
        return order_in(action, f"{_ACTIONS}/{os.path.basename(action.folder)}")

    def advised(self, action: Action, result: Result) -> Result:
        """Return a result with advice on files that only the project has."""
        return advised(action, result, f"{_ACTIONS}/{os.path.basename(action.folder)}/work")

    def explained(self, event: Event, worker: WorkerProcess) -> Event:
        """Return what became of an attempt: too little memory ends its worker or its container."""
        if not isinstance(worker, Forked) or not isinstance(worker.server.channel, _Contained):
            return event
        channel, is_alive = worker.server.channel, not worker.server.is_gone
        channel.kill()  # Only what has ended tells why.
        told = ended(self._containers.client, channel.id, event.action, cancelled=False)
        return event if is_alive and not told.out_of_memory else told

    def close(self) -> None:
        """Kill and remove the containers."""
        for servers in self._servers.values():
            for server in servers:
                server.close()


def _kind(action: Action) -> Hashable:
    """Return what the workers of a container have in common."""
    call = action.call
    variables = tuple(sorted(call.env.items()))
    # What a worker leaves may tell its secrets, so only those who have the same ones share it.
    own = call.secrets
    secrets = (*sorted(own.variables.items()), "", *sorted(own.files.items()))
    return (call.code, variables, action.limits, tuple(action.gpus), secrets)


class _Contained:
    """Channel to a fork server in a container that is started for an action; see `Channel`.

    Packets wait until it has connected.
    """

    is_here = False

    def __init__(self, containers: Containers, action: Action) -> None:
        assert action.endpoint
        self._containers = containers
        name = f"fork-{os.urandom(6).hex()}"
        self._path = f"{os.path.dirname(action.endpoint.socket)}/{name}"
        open_to_all(action)
        self._listener = socket.socket(fileno=listen(self._path, socket.SOCK_SEQPACKET))
        self._listener.setblocking(False)
        try:
            program, folder = [_START, f"{API}/{name}"], os.path.dirname(action.folder)
            self.id, self._streams = containers.start(action, program, (folder, _ACTIONS))
        except BaseException:
            self._listener.close()
            os.unlink(self._path)
            raise
        self._socket: socket.socket | None = None
        self._waiting: list[tuple[bytes, list[int]]] = []
        self._events = select.epoll()
        for each in (self._listener, self._streams):
            self._events.register(each.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a packet, or the container ends."""
        return self._events.fileno()

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a packet with descriptors, or keep it until the server has connected."""
        if self._socket is None:
            self._waiting.append((packet, [os.dup(each) for each in descriptors]))
        else:
            socket.send_fds(self._socket, [packet], [*descriptors])

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Return a packet with descriptors; None if there is none yet."""
        ready = {descriptor for descriptor, _ in self._events.poll(0)}
        if self._socket is None and self._listener.fileno() in ready:
            self._connect()
        if self._socket and (answer := received(self._socket)):
            return answer
        if self._streams.fileno() in ready and not os.read(self._streams.fileno(), _CHUNK):
            raise ConnectionResetError
        return None

    def _connect(self) -> None:
        self._events.unregister(self._listener.fileno())
        self._socket, _ = self._listener.accept()
        self._socket.setblocking(False)
        self._events.register(self._socket.fileno(), select.EPOLLIN)
        self._stop_listening()
        waiting, self._waiting = self._waiting, []
        for packet, descriptors in waiting:
            socket.send_fds(self._socket, [packet], descriptors)
            for each in descriptors:
                os.close(each)

    def _stop_listening(self) -> None:
        self._listener.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def kill(self) -> None:
        """Kill the container with everything in it, which is found later."""
        with suppress(EngineUnavailable), asking("stop a container"):
            self._containers.client.kill(self.id, signal.SIGKILL)

    def close(self) -> None:
        """Kill and remove the container."""
        if self._events.closed:
            return
        self._events.close()
        self._stop_listening()
        for _, descriptors in self._waiting:
            for each in descriptors:
                os.close(each)
        if self._socket:
            self._socket.close()
        close(self._streams)
        self._containers.remove(self.id)
