"""Workers that a fork server forks: they begin in a millisecond or two."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from flyte_build.runner.worker.preloads import FORKABLE
from flyte_build.runner.worker.process_tree import signal_group, signal_tree
from flyte_build.runner.worker.spawn import Worker, spawn, streams

if TYPE_CHECKING:
    from flyte_build.runner.call import Call
    from flyte_build.runner.sources import Sources

_MOST = 8  # Servers at once; further variables are those of one call each, most likely.
_PATIENCE = 3  # Losses of one kind of server.
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


class ForkServer:
    """A server in the interpreter `python`, which starts with `environment`.

    Its workers run the code at `sources`, with `variables`; it imports packages for them if it
    `may_import`. Raises `OSError` if it cannot be started.
    """

    def __init__(
        self,
        python: str,
        environment: Mapping[str, str],
        variables: Mapping[str, str],
        sources: Sources,
        *,
        may_import: bool,
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
        self._may_import, self._imported = may_import, set[str]()
        self._spares: deque[Forked] = deque()
        self._is_busy = False  # Whether it has forked before.
        self._asked: deque[Forked] = deque()  # The workers that the next answers are about.
        self.is_gone = False
        try:
            self._begin({"variables": dict(variables), "sources": sources.document()})
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are answers."""
        return self._socket.fileno()

    def use(self, packages: Iterable[str]) -> None:
        """Import packages for the forks that follow, as far as they may be."""
        wanted = {*packages} - self._imported if self._may_import else set[str]()
        if new := [name for name in FORKABLE if name in wanted]:
            self._drop_spares()
            self._imported.update(new)
            self._send("import", new)

    def fork(self) -> Forked:
        """Begin to fork a worker, or return one that was forked ahead: many calls follow others."""
        worker = self._spares.popleft() if self._spares else self._fork()
        if self._is_busy:
            with suppress(OSError):  # There are no more descriptors.
                self._spares.append(self._fork())
        self._is_busy = True
        return worker

    def ask_to_reap(self, worker: Forked) -> None:
        """Ask for the exit code of a worker that has ended."""
        with suppress(OSError):
            self._send("reap", worker.pid)
            self._asked.append(worker)

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
            for each in descriptors:
                os.set_inheritable(each, False)
            kind, answer = json.loads(data)
            self._asked.popleft().take(kind, answer, descriptors)

    def close(self) -> None:
        """Kill the server; its workers end with their controls."""
        self._drop_spares()
        self.is_gone = True
        self._socket.close()
        signal_group(self._server.pid, signal.SIGKILL)
        self._server.reap()

    def _begin(self, settings: Mapping[str, Any]) -> None:
        """Send the settings in a file, since a packet may be too small."""
        file = os.memfd_create("flyte-fork-server-settings")
        try:
            with open(file, "w", encoding="utf-8", closefd=False) as text:
                json.dump(settings, text)
            self._send("begin", descriptors=[file])
        finally:
            os.close(file)

    def _fork(self) -> Forked:
        output, out, err = streams()
        control, listen = socket.socketpair()
        worker = Forked(self, control.detach(), output)
        try:
            self._send("fork", descriptors=[listen.fileno(), out, err])
        except OSError:
            worker.dismiss()
            raise
        finally:
            listen.close()
            for each in (out, err):
                os.close(each)
        self._asked.append(worker)
        return worker

    def _drop_spares(self) -> None:
        """Let spare workers end: they have no order."""
        while self._spares:
            self._spares.popleft().dismiss()

    def _send(self, *request: Any, descriptors: Iterable[int] = ()) -> None:
        packet = json.dumps(request).encode()
        try:
            while True:
                try:
                    socket.send_fds(self._socket, [packet], [*descriptors])
                    return
                except BlockingIOError:  # It is importing.
                    _wait(self._socket.fileno(), select.POLLOUT)
        except ConnectionError:
            self.is_gone = True


class Forked:
    """A worker of a fork server, which leads a process group; see `WorkerProcess`."""

    sends_result = True
    ends_when_asked = True

    def __init__(self, server: ForkServer, control: int, output: dict[int, int]) -> None:
        self.control, self.output = control, output
        self.pid: int | None = None
        self.why = ""
        self._server = server
        self._process: int | None = None  # Its pidfd, until it has ended.
        self._signal: int | None = None  # What it gets as soon as it is there.
        self._is_dismissed = self._has_ended = self._is_answered = False
        self._code: int | None = None

    @property
    def end(self) -> int:
        """A descriptor that is readable when `has_ended` has something to do."""
        return self._server.fileno() if self._process is None else self._process

    def take(self, kind: str, answer: Any, descriptors: list[int]) -> None:
        """Take an answer of the server: a process that was forked, or not, or its exit code."""
        if kind == "ended":
            self._code, self._is_answered = answer, True
        elif kind == "failed" or not descriptors:  # There may be no more descriptors here.
            why = answer if kind == "failed" else "its descriptor was lost"
            self.why = f"it was not forked: {why}"
            self._has_ended = self._is_answered = True
            if kind == "forked":
                signal_tree(answer, signal.SIGKILL)
        else:
            self.pid, (self._process,) = answer, descriptors
            if self._is_dismissed:
                self._forget(self._process)
            elif self._signal is not None:
                self.signal(self._signal)

    def learn(self, packages: Sequence[str]) -> None:
        """Let its server import what an action has imported, for the next ones."""
        with suppress(OSError):
            self._server.use(packages)

    def has_ended(self) -> bool:
        """Whether it has ended; the rest of its process group is killed then."""
        self._server.listen()
        if self._process is None:
            return self._has_ended or self._server.is_gone
        if not _wait(self._process, select.POLLIN, 0):
            return False
        self._forget(self._process)
        return True

    def has_code(self) -> bool:
        """Whether its exit code has come, or never will."""
        self._server.listen()
        return self._is_answered or self._server.is_gone

    def reap(self) -> int | None:
        """Return the exit code of the worker, which has ended; None if it is unknown."""
        return self._code

    def dismiss(self) -> None:
        """Kill the worker, and forget it."""
        for each in (*self.output, self.control):
            os.close(each)
        self._is_dismissed = True
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._forget(self._process)

    def signal(self, number: int) -> None:
        """Send a signal to the worker and all its processes."""
        self._signal = number
        is_there = self._process is not None and not _wait(self._process, select.POLLIN, 0)
        if self.pid is not None and is_there:
            signal_tree(self.pid, number)

    def _forget(self, process: int) -> None:
        """Let the server reap the worker, after which its pid may be reused."""
        os.close(process)
        self._process, self._has_ended = None, True
        if not self._server.is_gone and self.pid is not None:
            signal_group(self.pid, signal.SIGKILL)
            self._server.ask_to_reap(self)


def _wait(descriptor: int, mask: int, milliseconds: int | None = None) -> bool:
    """Wait for a descriptor (`select` takes none above 1023), and return whether it is ready."""
    poll = select.poll()
    poll.register(descriptor, mask)
    return bool(poll.poll(milliseconds))


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
                    python,
                    environment,
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
