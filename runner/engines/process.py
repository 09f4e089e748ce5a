"""The `process` engine: each attempt runs in a Python process, which ends with the command."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Protocol

from flyte_build.cas.os_errors import storing
from flyte_build.errors import RuntimeSystemError
from flyte_build.runner.action import Action
from flyte_build.runner.limits import VISIBLE_GPUS
from flyte_build.runner.result import NO_RESULT, Result
from flyte_build.runner.worker.spawn import follow_size

from .output import Output
from .protocol import Event, Sink, Waits

# Seconds between two looks for the end of workers, where their end is no event.
_TURN = 0.01
# Seconds to continue reading after a worker has ended, if another process holds its output open.
_DRAIN = 1.0
_CHUNK = 1 << 16


class WorkerProcess(Protocol):
    """A process that waits for an order, and leads a process group.

    `control` is a pipe, and `output` maps descriptors to read from to streams (1 or 2). If it
    `sends_result`, `control` is a socket on which the result comes; otherwise that is a file.
    """

    control: int
    output: dict[int, int]
    sends_result: bool

    @property
    def pid(self) -> int | None:
        """Its process id; None if it is not forked yet."""

    @property
    def end(self) -> int | None:
        """A descriptor that is readable when `has_ended` is to be asked; None if it has none."""

    def has_ended(self) -> bool:
        """Whether it has ended; the rest of its process group is killed then."""

    def reap(self, *, wants_code: bool) -> int | None:
        """Return the exit code of the process, which has ended, or None if it cannot be known.

        It need not be known unless the caller `wants_code`.
        """

    def signal(self, number: int) -> None:
        """Send a signal to the process and all its descendants."""


class ProcessEngine:
    """Engine that runs attempts in workers; `sink` receives the output.

    `start` returns a worker for an attempt, which may have been started early.
    """

    name = "process"
    runs_here = False
    acts_on = frozenset(("retries", "timeout", "env_vars", "resources", "secrets"))

    def __init__(self, sink: Sink, start: Callable[[Action], WorkerProcess]) -> None:
        self._sink, self._start = sink, start
        self._attempts: dict[tuple[str, int], _Attempt] = {}

    def submit(self, action: Action) -> None:
        """Begin an attempt, unless it has begun already (same action, same attempt).

        Raises `RuntimeSystemError` if the worker cannot be started, and `StoreUnavailable`.
        """
        if (action.id, action.attempt) in self._attempts:
            return
        with storing("write an action"):
            output = Output(action, self._sink)
        try:
            worker = self._started(action)
        except BaseException:
            output.close()
            raise
        self._attempts[action.id, action.attempt] = _Attempt(action, worker, output)

    def _started(self, action: Action) -> WorkerProcess:
        """Return a worker that has its order."""
        # Secrets in files are for containers: here, all processes would see them.
        order = {**action.order(action.folder), "files": {}, "guarded": True}
        if action.gpus:
            order["env"] = {VISIBLE_GPUS: ",".join(action.gpus), **order["env"]}
        try:
            worker = self._start(action)
        except OSError as error:  # The system has no more processes, or the interpreter is gone.
            raise _not_started(error.strerror or str(error)) from None
        try:
            _give(worker, action, order)
        except BrokenPipeError:
            raise _not_started(_last_words(worker)) from None
        except BaseException:
            _dismiss(worker)
            raise
        return worker

    def waits(self) -> Waits:
        """Return the output of workers, their ends, and the readers of held output."""
        read, write, seconds = list[int](), list[int](), list[float]()
        for attempt in self._attempts.values():
            if attempt.sends:
                read.append(attempt.worker.control)
            if attempt.output.is_held:
                write.append(attempt.output.descriptor)
            else:
                read += attempt.worker.output
            if attempt.ended is None:
                if (end := attempt.worker.end) is None:
                    seconds.append(_TURN)
                else:
                    read.append(end)
            elif not attempt.output.is_held:
                seconds.append(max(0.0, attempt.ended + _DRAIN - time.monotonic()))
        return Waits(read, write, min(seconds, default=None))

    def events(self) -> list[Event]:
        """Pass on output, and return the attempts that have ended, without waiting."""
        found = []
        for attempt in list(self._attempts.values()):
            if attempt.has_terminal:
                follow_size(attempt.worker.output)
            attempt.pass_on()
            if attempt.is_over():
                found.append(self._finish(attempt))
        return found

    def cancel(self, action: Action, at_once: bool) -> None:
        """Ask the attempt and all its processes to end; kill them with `at_once`."""
        if attempt := self._attempts.get((action.id, action.attempt)):
            attempt.signal(signal.SIGKILL if at_once else signal.SIGTERM)

    def running(self) -> list[Action]:
        """Return the attempts that have not ended."""
        return [attempt.action for attempt in self._attempts.values()]

    def close(self) -> None:
        """Kill all remaining workers."""
        for attempt in list(self._attempts.values()):
            attempt.signal(signal.SIGKILL)
            while not attempt.is_over():
                time.sleep(_TURN)
                attempt.pass_on()
            self._finish(attempt)

    def _finish(self, attempt: _Attempt) -> Event:
        del self._attempts[attempt.action.id, attempt.action.attempt]
        result = Result.decoded(bytes(attempt.sent))
        code = attempt.reap(wants_code=result is None)
        if result is None or attempt.is_asked:
            event = _event(attempt.action, code, cancelled=attempt.is_asked)
        else:
            event = Event(attempt.action, "failed" if result.error else "succeeded", result=result)
        if event.kind == "lost":
            from .orphans import kill_orphans

            kill_orphans(attempt.action)
        return event


class _Attempt:
    """An attempt in its worker.

    `ended` is the monotonic time of the end, or of the last output since.
    """

    def __init__(self, action: Action, worker: WorkerProcess, output: Output) -> None:
        self.action, self.worker, self.output = action, worker, output
        for descriptor in worker.output:
            os.set_blocking(descriptor, False)
        self.has_terminal = any(map(os.isatty, worker.output))
        self.sends, self.sent = worker.sends_result, bytearray()
        if self.sends:
            os.set_blocking(worker.control, False)
        self.ended: float | None = None
        self.is_asked = False

    def pass_on(self) -> None:
        """Receive the result, and pass on output.

        While output is held, nothing more is read, so that the worker waits, too. After it was
        asked to end, the reader is not waited for.
        """
        while self.sends and (data := _read(self.worker.control)) is not None:
            self.sent += data
            self.sends = bool(data)
        self.output.pass_on(leave=self.is_asked)
        for descriptor in () if self.output.is_held else list(self.worker.output):
            if (data := _read(descriptor)) is None:
                continue
            if data:
                self.output.take(self.worker.output[descriptor], data)
            else:
                os.close(descriptor)
                del self.worker.output[descriptor]
            if self.ended is not None:
                self.ended = time.monotonic()
        self.output.pass_on(leave=self.is_asked)

    def is_over(self) -> bool:
        """Whether the worker has ended, and all of its output was passed on."""
        if self.ended is None:
            if not self.worker.has_ended():
                return False
            self.ended = time.monotonic()
            self.pass_on()
        if self.output.is_held:
            return False
        if self.worker.output and time.monotonic() - self.ended <= _DRAIN:
            return False
        self.output.end()
        self.output.pass_on(leave=self.is_asked)
        return not self.output.is_held

    def reap(self, *, wants_code: bool) -> int | None:
        """Return the exit code of the worker that has ended, and close everything."""
        for descriptor in (*self.worker.output, self.worker.control):
            os.close(descriptor)
        self.output.close()
        return self.worker.reap(wants_code=wants_code)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker and all its processes."""
        self.is_asked = True
        self.worker.signal(number)


def _read(descriptor: int) -> bytes | None:
    """Return available bytes, None if there are none yet, or b"" at the end."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno != errno.EIO:  # Linux raises it for a terminal that no process has open.
            raise
        return b""


def _not_started(why: str) -> RuntimeSystemError:
    return RuntimeSystemError("RuntimeSystemError", "Cannot start a worker", why=why)


def _give(worker: WorkerProcess, action: Action, order: dict[str, Any]) -> None:
    """Give a worker its order, with the action itself if that is little.

    Raises `BrokenPipeError` if the worker has ended, and `StoreUnavailable`.
    """
    text = ""
    if worker.sends_result:
        text = json.dumps({**order, "action": action.document()})
    if not text or len(text) > _CHUNK:  # A pipe takes no more before the worker reads.
        with storing("write an action"):
            action.write()
        text = json.dumps(order)
    try:
        os.write(worker.control, text.encode() + b"\n")
    except BrokenPipeError:
        if not worker.sends_result:  # A fork that was killed before is lost, which is found later.
            raise


def _dismiss(worker: WorkerProcess) -> None:
    """Kill a worker that was not needed, and forget it."""
    worker.signal(signal.SIGKILL)
    for descriptor in (*worker.output, worker.control):
        os.close(descriptor)
    while not worker.has_ended():
        time.sleep(_TURN)
    worker.reap(wants_code=False)


def _last_words(worker: WorkerProcess) -> str:
    """Return what a worker has said that has ended, or is about to, and forget it."""
    words = b""
    for descriptor in worker.output:
        os.set_blocking(descriptor, True)
        while data := _read(descriptor):
            words += data
    _dismiss(worker)
    return words[-2000:].decode(errors="replace")


def _event(action: Action, code: int | None, cancelled: bool) -> Event:
    if cancelled:
        return Event(action, "cancelled", code)
    if code is None:
        return Event(action, "lost", why="the server that had forked its process ended")
    if code == -signal.SIGKILL or code == 137:
        return Event(
            action,
            "lost",
            137,
            "it was killed (SIGKILL), most likely because the machine ran out of memory",
            out_of_memory=True,
        )
    if code < 0:
        return Event(
            action,
            "failed",
            128 - code,
            f"it ended with signal {-code} ({signal.strsignal(-code)})",
        )
    if code == NO_RESULT:
        return Event(
            action,
            "failed",
            code,
            "its result could not be written: is the disk full, or the run's directory gone?",
        )
    return Event(
        action,
        "succeeded" if code == 0 else "failed",
        code,
        "" if code == 0 else f"its process ended with exit code {code}",
    )
