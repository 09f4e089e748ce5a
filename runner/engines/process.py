"""The `process` engine: each attempt runs in a Python process, which ends with the command."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable

from flyte_build.cas.os_errors import storing
from flyte_build.errors import RuntimeSystemError
from flyte_build.runner.action import Action
from flyte_build.runner.call import Call
from flyte_build.runner.limits import VISIBLE_GPUS
from flyte_build.runner.result import NO_RESULT
from flyte_build.runner.worker.process_tree import descendants
from flyte_build.runner.worker.spawn import Worker, dismiss, follow_size, signal_group

from .output import Output
from .protocol import Event, Sink, Waits

# Seconds between two looks for the end of workers, where their end is no event.
_TURN = 0.01
# Seconds to continue reading after a worker has ended, if another process holds its output open.
_DRAIN = 1.0
_CHUNK = 1 << 16


class ProcessEngine:
    """Engine that runs attempts in workers; `sink` receives the output.

    `start` returns a worker for a call, which may have been started early.
    """

    name = "process"
    runs_here = False
    acts_on = frozenset(("retries", "timeout", "env_vars", "resources", "secrets"))

    def __init__(self, sink: Sink, start: Callable[[Call], Worker]) -> None:
        self._sink, self._start = sink, start
        self._attempts: dict[tuple[str, int], _Attempt] = {}

    def submit(self, action: Action) -> None:
        """Begin an attempt, unless it has begun already (same action, same attempt).

        Raises `RuntimeSystemError` if the worker cannot be started, and `StoreUnavailable`.
        """
        if (action.id, action.attempt) in self._attempts:
            return
        with storing("write an action"):
            action.write()
            output = Output(action, self._sink)
        try:
            worker = self._started(action)
        except BaseException:
            output.close()
            raise
        self._attempts[action.id, action.attempt] = _Attempt(action, worker, output)

    def _started(self, action: Action) -> Worker:
        """Return a worker that has its order."""
        # Secrets in files are for containers: here, all processes would see them.
        order = {**action.order(action.folder), "files": {}, "guarded": True}
        if action.gpus:
            order["env"] = {VISIBLE_GPUS: ",".join(action.gpus), **order["env"]}
        try:
            worker = self._start(action.call)
        except OSError as error:  # The system has no more processes, or the interpreter is gone.
            raise _not_started(error.strerror or str(error)) from None
        try:
            os.write(worker.control, json.dumps(order).encode() + b"\n")
        except BrokenPipeError:
            why = _last_words(worker)
            dismiss(worker)
            raise _not_started(why) from None
        return worker

    def waits(self) -> Waits:
        """Return the output of workers, their ends, and the readers of held output."""
        read, write, seconds = list[int](), list[int](), list[float]()
        for attempt in self._attempts.values():
            if attempt.output.is_held:
                write.append(attempt.output.descriptor)
            else:
                read += attempt.worker.output
            if attempt.ended is None:
                if attempt.end is None:
                    seconds.append(_TURN)
                else:
                    read.append(attempt.end)
            elif not attempt.output.is_held:
                seconds.append(max(0.0, attempt.ended + _DRAIN - time.monotonic()))
        return Waits(read, write, min(seconds, default=None))

    def events(self) -> list[Event]:
        """Pass on output, and return the attempts that have ended, without waiting."""
        found = []
        for attempt in list(self._attempts.values()):
            follow_size(attempt.worker)
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
        event = _event(attempt.action, attempt.reap(), cancelled=attempt.is_asked)
        if event.kind == "lost":
            from .orphans import kill_orphans

            kill_orphans(attempt.action)
        return event


class _Attempt:
    """An attempt in its worker; `end` is a descriptor that is readable when the worker has ended.

    It is None where the system has none. `ended` is the monotonic time of the end, or of the last
    output since.
    """

    def __init__(self, action: Action, worker: Worker, output: Output) -> None:
        self.action, self.worker, self.output = action, worker, output
        for descriptor in worker.output:
            os.set_blocking(descriptor, False)
        self.end = _end_of(worker.pid)
        self.ended: float | None = None
        self.is_asked = False

    def pass_on(self) -> None:
        """Pass on output.

        While output is held, nothing more is read, so that the worker waits, too. After it was
        asked to end, the reader is not waited for.
        """
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
        """Whether the worker has ended, and all of its output was passed on.

        The rest of its process group is killed as soon as it has ended.
        """
        if self.ended is None:
            if not os.waitid(os.P_PID, self.worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return False
            self.ended = time.monotonic()
            signal_group(self.worker.pid, signal.SIGKILL)  # Before its pid can be reused.
            self.pass_on()
        if self.output.is_held:
            return False
        if self.worker.output and time.monotonic() - self.ended <= _DRAIN:
            return False
        self.output.end()
        self.output.pass_on(leave=self.is_asked)
        return not self.output.is_held

    def reap(self) -> int:
        """Return the exit code of the worker that has ended, and close everything."""
        _, status = os.waitpid(self.worker.pid, 0)
        end = () if self.end is None else (self.end,)
        for descriptor in (*self.worker.output, self.worker.control, *end):
            os.close(descriptor)
        self.output.close()
        return os.waitstatus_to_exitcode(status)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker and all its processes."""
        self.is_asked = True
        everything = descendants(self.worker.pid)
        signal_group(self.worker.pid, number)
        for pid in everything:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _end_of(pid: int) -> int | None:
    """Return a descriptor that is readable when a process has ended, or None: pidfd_open(2)."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # Not Linux, an old one, or no more descriptors.
        return None


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


def _last_words(worker: Worker) -> str:
    words = b""
    for descriptor in worker.output:
        os.set_blocking(descriptor, True)  # Its process has ended, or is about to.
        while data := _read(descriptor):
            words += data
    return words[-2000:].decode(errors="replace")


def _event(action: Action, code: int, cancelled: bool) -> Event:
    if cancelled:
        return Event(action, "cancelled", code)
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
