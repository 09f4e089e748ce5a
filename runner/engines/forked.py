"""Workers that a fork server forks: they begin in a millisecond or two."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flyte_build.runner.worker.preloads import FORKABLE
from flyte_build.runner.worker.process_tree import signal_tree
from flyte_build.runner.worker.spawn import Worker, signal_group, spawn, streams

if TYPE_CHECKING:
    from flyte_build.runner.call import Call
    from flyte_build.runner.sources import Sources

_MOST = 8  # Servers at once; further variables are those of one call each, most likely.
_PATIENCE = 3  # Losses of one kind of server.
_Kind = tuple[str, str, tuple[tuple[str, str], ...]]  # Interpreter, code and variables.


def can_fork() -> bool:
    """Whether workers are forked on this system, and the user has not turned that off."""
    return hasattr(os, "pidfd_open") and os.environ.get("FLYTE_FORK", "1") != "0"


class ForkServer:
    """A server in the interpreter `python`, which starts with `environment`.

    Its workers run the code at `sources`, with `variables`. Raises `OSError` if it cannot be
    started.
    """

    def __init__(
        self,
        python: str,
        environment: Mapping[str, str],
        variables: Mapping[str, str],
        sources: Sources,
    ) -> None:
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
        self._imported: set[str] = set()
        self._spares: deque[Forked] = deque()
        self._is_busy = False  # Whether it has forked before.
        self._asked: deque[Forked] = deque()  # The workers that the next answers are about.
        self.is_gone = False
        self._send("begin", dict(variables), sources.document())

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are answers."""
        return self._socket.fileno()

    def use(self, packages: Iterable[str]) -> None:
        """Import packages for the forks that follow, as far as they may be."""
        if new := [name for name in FORKABLE if name in {*packages} - self._imported]:
            self._drop_spares()
            self._imported.update(new)
            self._send("import", new)

    def fork(self) -> Forked:
        """Begin to fork a worker, or return one that was forked ahead: many calls follow others."""
        worker = self._spares.popleft() if self._spares else self._fork()
        if self._is_busy:
            self._spares.append(self._fork())
        self._is_busy = True
        return worker

    def _fork(self) -> Forked:
        control, listen = socket.socketpair()
        output, out, err = streams()
        theirs = (listen.detach(), out, err)
        worker = Forked(self, control.detach(), output, theirs)
        self.ask(worker, "fork", descriptors=theirs)
        return worker

    def ask(self, worker: Forked, *request: Any, descriptors: Iterable[int] = ()) -> None:
        """Send a request, whose answer the worker takes."""
        self._asked.append(worker)
        self._send(*request, descriptors=descriptors)

    def listen(self) -> None:
        """Let workers take the answers that are there."""
        while not self.is_gone:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 12, 1)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self.is_gone = True
                return
            self._asked.popleft().take(json.loads(data), descriptors)

    def close(self) -> None:
        """Kill the server; its workers end with their controls."""
        self._drop_spares()
        self._socket.close()
        signal_group(self._server.pid, signal.SIGKILL)
        self._server.reap()

    def _drop_spares(self) -> None:
        """Let spare workers end: they have no order."""
        while self._spares:
            self._spares.popleft().drop()

    def _send(self, *request: Any, descriptors: Iterable[int] = ()) -> None:
        packet = json.dumps(request).encode()
        try:
            while True:
                try:
                    socket.send_fds(self._socket, [packet], [*descriptors])
                    return
                except BlockingIOError:  # It is importing.
                    select.select([], [self._socket], [])
        except ConnectionError:
            self.is_gone = True


class Forked:
    """A worker of a fork server, which leads a process group; see `WorkerProcess`."""

    sends_result = True

    def __init__(
        self, server: ForkServer, control: int, output: dict[int, int], theirs: Sequence[int]
    ) -> None:
        self.control, self.output = control, output
        self._server, self._theirs = server, theirs  # Open here until the server has taken them.
        self.pid: int | None = None
        self._process: int | None = None  # Its pidfd.
        self._signal: int | None = None  # What it gets as soon as it is there.
        self._is_answered = self._is_dropped = False  # Whether its last answer has come.
        self._code: int | None = None

    @property
    def end(self) -> int:
        """A descriptor that is readable when `has_ended` has something to do."""
        return self._server.fileno() if self._process is None else self._process

    def take(self, answer: int | str, descriptors: list[int]) -> None:
        """Take an answer of the server."""
        self._leave()
        if descriptors:
            (self._process,), self.pid = descriptors, int(answer)
            if self._signal is not None:
                self.signal(self._signal)
            if self._is_dropped:
                self.drop()
        else:
            self._is_answered = True
            self._code = answer if isinstance(answer, int) else None

    def has_ended(self) -> bool:
        """Whether it has ended; the rest of its process group is killed then."""
        self._server.listen()
        if self._process is None or self.pid is None:
            return self._is_answered or self._server.is_gone
        has_ended = self._is_zombie()
        if has_ended or self._server.is_gone:
            signal_group(self.pid, signal.SIGKILL)  # Before its pid can be reused.
        return has_ended

    def reap(self, *, wants_code: bool) -> int | None:
        """Return the exit code of the worker, which has ended; None if its server was lost."""
        self._leave()
        if self._process is None:
            return None
        os.close(self._process)
        self._server.ask(self, "reap", self.pid)
        while wants_code and not (self._is_answered or self._server.is_gone):
            select.select([self._server], [], [])
            self._server.listen()
        return self._code

    def drop(self) -> None:
        """Let a worker end that has no order."""
        if not self._is_dropped:
            for each in (*self.output, self.control):
                os.close(each)
        self._is_dropped = True
        if self._process is not None:
            os.close(self._process)
            self._process = None
            self._server.ask(self, "reap", self.pid)

    def signal(self, number: int) -> None:
        """Send a signal to the worker and all its processes."""
        self._signal = number
        if self.pid is not None and not self._is_zombie():
            signal_tree(self.pid, number)

    def _is_zombie(self) -> bool:
        return self._process is None or bool(select.select([self._process], [], [], 0)[0])

    def _leave(self) -> None:
        theirs, self._theirs = self._theirs, ()
        for each in theirs:
            os.close(each)


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
                self._gone.append(self._servers.pop(kind))
                self._losses[kind] += 1
                server = None
        if server is None:
            if len(self._servers) == _MOST or self._losses[kind] == _PATIENCE:
                return None
            server = self._servers[kind] = ForkServer(python, environment, variables, call.sources)
        if not self._losses[kind]:
            server.use(call.packages)
        return server.fork()

    def close(self) -> None:
        """Kill the servers."""
        for server in (*self._servers.values(), *self._gone):
            server.close()
