"""Fork servers that are processes of this machine, by what their workers share."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from flyte_build.runner.worker.process_tree import signal_group
from flyte_build.runner.worker.spawn import Worker, spawn

from .forked import Forked, ForkServer, wait_for

if TYPE_CHECKING:
    from flyte_build.runner.call import Call

_MOST = 8  # Servers at once; further variables are those of one call each, most likely.
_PATIENCE = 3  # Losses of one kind of server.
PACKET = 1 << 12  # Bytes of the longest answer.
_Kind = tuple[str, str, tuple[tuple[str, str], ...]]  # Interpreter, code and variables.


@cache
def has_pidfd() -> bool:
    """Whether this system has pidfd_open(2), which old ones and sandboxes refuse."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def can_fork() -> bool:
    """Whether workers are forked on this system, and the user has not turned that off."""
    return os.environ.get("FLYTE_FORK", "1") != "0" and has_pidfd()


class Spawned:
    """Channel to a server that is started here, in the interpreter `python`; see `Channel`.

    `environment` is that of the process. Raises `OSError` if it cannot be started.
    """

    is_here = True

    def __init__(self, python: str, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        said = os.memfd_create("flyte-fork-server")  # A pipe that nobody reads would fill.
        try:
            pid = spawn(python, environment, "fork_server", theirs.fileno(), said, said)
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()
            os.close(said)
        self._server = Worker(pid, -1, {})
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a packet, or the server ends."""
        return self._socket.fileno()

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a packet with descriptors; wait while the server has no room, as it imports."""
        while True:
            try:
                socket.send_fds(self._socket, [packet], [*descriptors])
                return
            except BlockingIOError:
                wait_for(self._socket.fileno(), select.POLLOUT)

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Return a packet with descriptors; None if there is none yet."""
        return received(self._socket)

    def kill(self) -> None:
        """Kill the server."""
        signal_group(self._server.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the server, and forget it."""
        self._socket.close()
        self.kill()
        self._server.reap()


def received(connection: socket.socket) -> tuple[bytes, list[int]] | None:
    """Return an answer, and its descriptors, from a connection that does not block.

    It is None if there is none yet. Raises `ConnectionError` at the end.
    """
    try:
        data, descriptors, _, _ = socket.recv_fds(connection, PACKET, 1)
    except BlockingIOError:
        return None
    if not data:
        raise ConnectionResetError
    return data, descriptors


class ForkServers:
    """Fork servers, each for what its workers share: an interpreter, variables, and code."""

    def __init__(self) -> None:
        self._servers: dict[_Kind, ForkServer] = {}
        self._gone: list[ForkServer] = []
        self._losses: Counter[_Kind] = Counter()

    def fork(self, python: str, environment: Mapping[str, str], call: Call) -> Forked | None:
        """Return a worker for a call, whose packages it has imported already.

        It is None if there are too many servers, or if this one was lost repeatedly.
        """
        variables = call.env
        kind = (python, call.code, tuple(sorted(variables.items())))
        server = self._servers.get(kind)
        if server:
            server.listen()
            if server.is_gone:  # Killed, or it could not fork after an import.
                self._lose(kind)
                server = None
        if self._losses[kind] >= _PATIENCE or (server is None and len(self._servers) == _MOST):
            return None
        try:
            if server is None:
                # The one before may have been lost because of what it had imported.
                server = self._servers[kind] = ForkServer(
                    Spawned(python, environment),
                    variables,
                    call.sources,
                    may_import=not self._losses[kind],
                )
            server.use(call.packages)
            return server.fork()
        except OSError:  # The caller starts a process, and reports why that fails.
            if kind in self._servers:
                self._lose(kind)
            return None

    def _lose(self, kind: _Kind) -> None:
        self._gone.append(self._servers.pop(kind))
        self._losses[kind] += 1

    def close(self) -> None:
        """Kill the servers."""
        for server in (*self._servers.values(), *self._gone):
            server.close()
