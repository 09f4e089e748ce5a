"""Workers that a fork server forks: they begin in a millisecond or two."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from flyte_build.runner.worker.preloads import FORKABLE
from flyte_build.runner.worker.process_tree import signal_group, signal_tree
from flyte_build.runner.worker.spawn import streams

if TYPE_CHECKING:
    from flyte_build.runner.sources import Sources


class Channel(Protocol):
    """Connection to a fork server; its process ends with it."""

    is_here: bool
    """Whether its processes have ids here, so that they can be signalled."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a packet, or the server ends."""

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a packet with descriptors. Raises `ConnectionError` if the server has ended."""

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Return a packet with descriptors; None if there is none yet.

        Raises `ConnectionError` if the server has ended.
        """

    def kill(self) -> None:
        """Kill everything at the other end, if nothing else can be signalled there."""

    def close(self) -> None:
        """Kill the server; its workers end with their controls."""


class ForkServer:
    """A fork server at the other end of a channel.

    Its workers run the code at `sources`, with `variables`; it imports packages for them if it
    `may_import`. Raises `OSError` if it has no room for that.
    """

    def __init__(
        self,
        channel: Channel,
        variables: Mapping[str, str],
        sources: Sources,
        *,
        may_import: bool,
    ) -> None:
        self.channel = channel
        self._may_import, self._imported = may_import, set[str]()
        self._spares: deque[Forked] = deque()
        self._last: Forked | None = None
        self._asked: deque[Forked] = deque()  # The workers that the next answers are about.
        self.is_gone = False
        settings = {
            "variables": dict(variables),
            "sources": sources.document(),
            "alone": not channel.is_here,
        }
        try:
            self._begin(settings)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are answers."""
        return self.channel.fileno()

    @property
    def is_idle(self) -> bool:
        """Whether no worker is left that it has forked last."""
        self.listen()
        return not self.is_gone and (self._last is None or self._last.is_over)

    @property
    def is_left(self) -> bool:
        """Whether nothing waits any more for what became of the worker that it has forked last."""
        return self._last is None or self._last.is_left

    def use(self, packages: Iterable[str]) -> None:
        """Import packages for the forks that follow, as far as they may be."""
        wanted = {*packages} - self._imported if self._may_import else set[str]()
        if new := [name for name in FORKABLE if name in wanted]:
            self._drop_spares()
            self._imported.update(new)
            self._send("import", new)

    def fork(self) -> Forked:
        """Begin to fork a worker, or return one that was forked ahead: many calls follow others.

        A server that is alone with its worker forks none ahead.
        """
        worker = self._spares.popleft() if self._spares else self._fork()
        if self._last and self.channel.is_here:
            with suppress(OSError):  # There are no more descriptors.
                self._spares.append(self._fork())
        self._last = worker
        return worker

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a worker and all its processes."""
        if self.channel.is_here:
            signal_tree(pid, number)
        elif number == signal.SIGKILL:
            self.channel.kill()
        else:
            with suppress(OSError):
                self._send("signal", pid, number)

    def ask_to_reap(self, worker: Forked) -> None:
        """Ask for the exit code of a worker that has ended; the rest of its group is killed."""
        assert worker.pid is not None
        if self.channel.is_here and not self.is_gone:
            signal_group(worker.pid, signal.SIGKILL)
        with suppress(OSError):
            self._send("reap", worker.pid)
            self._asked.append(worker)

    def listen(self) -> None:
        """Let workers take the answers that are there."""
        while not self.is_gone:
            try:
                received = self.channel.receive()
            except ConnectionError:
                self.is_gone = True
                return
            if received is None:
                return
            data, descriptors = received
            for each in descriptors:
                os.set_inheritable(each, False)
            kind, answer = json.loads(data)
            self._asked.popleft().take(kind, answer, descriptors)

    def close(self) -> None:
        """Kill the server; its workers end with their controls."""
        self._drop_spares()
        self.is_gone = True
        self.channel.close()

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

    def _send(self, *request: Any, descriptors: Sequence[int] = ()) -> None:
        try:
            self.channel.send(json.dumps(request).encode(), descriptors)
        except ConnectionError:
            self.is_gone = True


class Forked:
    """A worker of a fork server, which leads a process group; see `WorkerProcess`."""

    sends_result = True
    ends_when_asked = True

    def __init__(self, server: ForkServer, control: int, output: dict[int, int]) -> None:
        self.control, self.output, self.server = control, output, server
        self.pid: int | None = None
        self.why = ""
        self._process: int | None = None  # Its pidfd, until it has ended.
        self._signal: int | None = None  # What it gets as soon as it is there.
        self._is_dismissed = self._has_ended = self._is_answered = self.is_left = False
        self._code: int | None = None

    @property
    def end(self) -> int:
        """A descriptor that is readable when `has_ended` has something to do."""
        return self.server.fileno() if self._process is None else self._process

    @property
    def is_over(self) -> bool:
        """Whether it has ended, as was found already."""
        return self._has_ended

    def take(self, kind: str, answer: Any, descriptors: list[int]) -> None:
        """Take an answer of the server: a process that was forked, or not, or its exit code."""
        if kind == "ended":
            self._code, self._is_answered = answer, True
        elif kind == "failed" or not descriptors:  # There may be no more descriptors here.
            why = answer if kind == "failed" else "its descriptor was lost"
            self.why = f"it was not forked: {why}"
            self._has_ended = self._is_answered = True
            if kind == "forked":
                self.server.signal(answer, signal.SIGKILL)
        else:
            self.pid, (self._process,) = answer, descriptors
            if self._is_dismissed:
                self._forget(self._process)
            elif self._signal is not None:
                self.signal(self._signal)

    def learn(self, packages: Sequence[str]) -> None:
        """Let its server import what an action has imported, for the next ones."""
        with suppress(OSError):
            self.server.use(packages)

    def has_ended(self) -> bool:
        """Whether it has ended; the rest of its process group is killed then."""
        self.server.listen()
        if self._process is None:
            return self._has_ended or self.server.is_gone
        if not wait_for(self._process, select.POLLIN, 0):
            return False
        self._forget(self._process)
        return True

    def has_code(self) -> bool:
        """Whether its exit code has come, or never will."""
        self.server.listen()
        return self._is_answered or self.server.is_gone

    def reap(self) -> int | None:
        """Return the exit code of the worker, which has ended; None if it is unknown."""
        self.is_left = True
        return self._code

    def dismiss(self) -> None:
        """Kill the worker, and forget it."""
        for each in (*self.output, self.control):
            os.close(each)
        self._is_dismissed = self.is_left = True
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._forget(self._process)

    def signal(self, number: int) -> None:
        """Send a signal to the worker and all its processes."""
        self._signal = number
        is_there = self._process is not None and not wait_for(self._process, select.POLLIN, 0)
        if self.pid is not None and is_there:
            self.server.signal(self.pid, number)

    def _forget(self, process: int) -> None:
        """Let the server reap the worker, after which its pid may be reused."""
        os.close(process)
        self._process, self._has_ended = None, True
        self.server.ask_to_reap(self)


def wait_for(descriptor: int, mask: int, milliseconds: int | None = None) -> bool:
    """Wait for a descriptor (`select` takes none above 1023), and return whether it is ready."""
    poll = select.poll()
    poll.register(descriptor, mask)
    return bool(poll.poll(milliseconds))
