"""Workers that carry out several actions at once, each of which has a seat in one of them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Hashable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from flyte_build.cas.os_errors import storing
from flyte_build.runner.action import Action, tidy
from flyte_build.runner.unix_socket import shut_down
from flyte_build.runner.worker.spawn import streams

from .attempt import give, pass_on
from .output import Output
from .protocol import Sink, Waits
from .team import Roster, Team

if TYPE_CHECKING:
    from .worker_process import WorkerProcess, Workplace

_FLOOD = 64  # Chunks of output that are read when the process has ended.


def place_of(action: Action) -> Action:
    """Return an action in the place of the worker that it shares: with its name and directory."""
    name = f"{action.call.task.semantic.environment}-{action.worker}"
    return action._replace(id=name, folder=f"{os.path.dirname(action.folder)}/{name}", attempt=1)


class SharedWorker:
    """A process with an event loop, which receives the descriptors of seats on its control.

    `folder` is its directory, and `output` takes what it writes outside of all actions.
    """

    def __init__(self, process: WorkerProcess, folder: str, output: Output) -> None:
        self.process, self.control, self.folder = process, process.control, folder
        self.seats: set[Seat] = set()
        self.why = ""  # Why all actions in it are lost, if they are.
        self._output = output
        self._is_gone = False
        self._code: int | None = None
        for descriptor in process.output:
            os.set_blocking(descriptor, False)

    def seat(self) -> Seat:
        """Return a seat for another action. Raises `OSError` if there are no more descriptors."""
        output, out, err = streams()
        control, theirs = socket.socketpair()
        seat = Seat(self, control.detach(), output)
        try:
            with (
                suppress(ConnectionError),  # It has ended, which is found later.
                socket.socket(fileno=os.dup(self.control)) as orders,
            ):
                socket.send_fds(orders, [b"+"], [theirs.fileno(), out, err])
        finally:
            theirs.close()
            for each in (out, err):
                os.close(each)
        self.seats.add(seat)
        return seat

    def has_ended(self) -> bool:
        """Whether the process has ended."""
        if not self._is_gone and self.process.has_ended():
            if len(self.seats) > 1 and not self.why:
                self.why = f"its worker ended, in which {len(self.seats)} actions ran"
            return True
        return self._is_gone

    def reap(self) -> int | None:
        """Return the exit code of the process, which has ended; None if several actions ran."""
        if not self._is_gone:
            self._end_output()
            for each in (*self.process.output, self.control):
                os.close(each)
            self._code = self.process.reap()
        return None if self.why else self._code

    def kill(self) -> None:
        """Kill the process, since an action in it did not end when it was asked to."""
        if len(self.seats) > 1:
            self.why = "its worker was killed, since another action in it did not end when asked"
        if not self._is_gone:
            self.process.signal(signal.SIGKILL)

    def dismiss(self) -> None:
        """Kill the process, and forget it with its descriptors."""
        if not self._is_gone:
            self._end_output()
            self.process.dismiss()

    def pass_on(self) -> None:
        """Pass on what was written outside of all actions."""
        if not self._is_gone:
            pass_on(self.process.output, self._output, leave=False)

    def waits(self) -> Waits:
        """Return what `pass_on` waits for."""
        if self._is_gone:
            return Waits()
        if self._output.is_held:
            return Waits(write=[self._output.descriptor])
        return Waits(read=[*self.process.output])

    def _end_output(self) -> None:
        self._is_gone = True
        for _ in range(_FLOOD):
            if not pass_on(self.process.output, self._output, leave=True):
                break
        self._output.end()
        self._output.pass_on(leave=True)
        self._output.close()


class Seat:
    """A place for one action in a worker; see `WorkerProcess`."""

    sends_result = True
    ends_when_asked = False

    def __init__(self, worker: SharedWorker, control: int, output: dict[int, int]) -> None:
        self.worker, self.control, self.output = worker, control, output

    @property
    def pid(self) -> int | None:
        """The process id of the worker."""
        return self.worker.process.pid

    @property
    def end(self) -> int | None:
        """A descriptor that is readable when the worker ends."""
        return self.worker.process.end

    @property
    def why(self) -> str:
        """Reason for which its action is lost with the worker, or ""."""
        return self.worker.why or self.worker.process.why

    def learn(self, packages: Sequence[str]) -> None:
        """Take note of packages that an action has imported in it."""
        self.worker.process.learn(packages)

    def has_ended(self) -> bool:
        """Whether the worker has ended."""
        return self.worker.has_ended()

    def has_code(self) -> bool:
        """Whether `reap` returns the exit code of the worker, or nothing ever will."""
        return self.worker.process.has_code()

    def reap(self) -> int | None:
        """Return the exit code of the worker, which has ended; None if others were in it."""
        code = self.worker.reap()
        self.worker.seats.discard(self)
        return code

    def dismiss(self) -> None:
        """Leave the seat, and forget it with its descriptors."""
        for each in (*self.output, self.control):
            os.close(each)
        self.worker.seats.discard(self)

    def signal(self, number: int) -> None:
        """Cancel the action, or kill the worker."""
        if number == signal.SIGKILL:
            self.worker.kill()
        else:
            shut_down(self.control)


class SharedWorkers:
    """Workers at a `place`, by their teams and numbers; `sink` receives their output."""

    def __init__(self, place: Workplace, sink: Sink) -> None:
        self._place, self._sink = place, sink
        self._workers: dict[tuple[Hashable, int], SharedWorker] = {}
        self._roster = Roster[SharedWorker]()

    def worker(self, team: Team, action: Action) -> Seat:
        """Return a seat in the action's worker, which is started if there is none.

        Raises `OSError` if it cannot be started.
        """
        number = (team.key, action.worker)
        worker = self._workers.get(number)
        if worker and not worker.seats:
            self._roster.wake(team, worker)
        if worker and worker.has_ended():
            self._forget(team, worker)
            worker = None
        if worker is None:
            worker = self._workers[number] = self._started(action)
            self._roster.begin(team)
        return worker.seat()

    def leave(self, team: Team, worker: WorkerProcess, *, has_ended: bool) -> None:
        """Take note that an action has left its seat, and whether its worker has ended."""
        assert isinstance(worker, Seat)
        if not has_ended:
            worker.dismiss()
            if not worker.worker.seats:
                self._roster.keep(team, worker.worker)
        else:
            self._forget(team, worker.worker)

    def waits(self) -> list[Waits]:
        """Return the output of workers, and the time at which one is to end."""
        waits = [worker.waits() for worker in self._workers.values()]
        return [*waits, Waits(seconds=self._roster.seconds())]

    def tend(self) -> None:
        """Pass on output outside of all actions, and end the workers whose time is over."""
        for worker in self._workers.values():
            worker.pass_on()
        for worker in self._roster.over():
            worker.dismiss()

    def close(self) -> None:
        """Kill all workers; those that are idle may end by themselves."""
        self._roster.close()
        for worker in self._workers.values():
            worker.dismiss()
            tidy(worker.folder)  # Not before: the next one with its number is in there.

    def _started(self, action: Action) -> SharedWorker:
        own = place_of(action)
        with storing("write an action"):
            self._place.prepare(own.folder)
        process = self._place.start(action)
        give(process, self._place.seen(own), {**self._place.order(own), "shares": True})
        return SharedWorker(process, own.folder, Output(own.folder, 1, own.id, self._sink))

    def _forget(self, team: Team, worker: SharedWorker) -> None:
        """Forget a worker that has ended, as soon as all seats are left."""
        if not worker.seats:
            self._roster.lose(team)
            worker.dismiss()
