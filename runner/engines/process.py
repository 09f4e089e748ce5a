"""The `process` engine: each attempt runs in a Python process, which ends with the command."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from flyte_build.errors import RuntimeSystemError
from flyte_build.runner.action import Action
from flyte_build.runner.result import NO_RESULT
from flyte_build.runner.worker.process_tree import descendants
from flyte_build.runner.worker.spawn import Worker, dismiss, follow_size, signal_group, start_worker

from .output import Output
from .protocol import Event, Sink

_GRACE = 5.0  # Seconds between SIGTERM and SIGKILL.
_TURN = 0.5  # Seconds between two checks whether a silent worker is still running.
# Seconds between the first checks of a worker that has closed its output; doubled each time.
_NAP = 0.0002
# Seconds to continue reading after a worker has ended, if another process holds its output open.
_DRAIN = 1.0
_CHUNK = 1 << 16


class ProcessEngine:
    """Engine that runs attempts in workers; `sink` receives the output.

    `start` starts a worker, and `spare` is one that was started early. `secrets` are environment
    variables of all workers, which no file contains.
    """

    name = "process"
    acts_on = frozenset(("retries", "timeout", "env_vars", "secrets"))

    def __init__(
        self,
        sink: Sink,
        spare: Worker | None = None,
        start: Callable[[], Worker] = start_worker,
        secrets: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._sink, self._spare, self._start, self._secrets = sink, spare, start, secrets
        self._workers: dict[tuple[str, int], tuple[Action, Worker, Output]] = {}

    def submit(self, action: Action) -> None:
        """Begin an attempt, unless it has begun already (same action, same attempt).

        Raises `RuntimeSystemError` if the worker cannot be started.
        """
        if (action.id, action.attempt) in self._workers:
            return
        worker, self._spare = self._spare or self._start(), None
        action.write()
        order = {
            "folder": action.folder,
            "env": {**action.call.env, **self._secrets},
            "guarded": True,
        }
        try:
            os.write(worker.control, json.dumps(order).encode() + b"\n")
        except BrokenPipeError:
            raise RuntimeSystemError(
                "Cannot start the worker", why=self._last_words(worker)
            ) from None
        self._workers[action.id, action.attempt] = (action, worker, Output(action, self._sink))

    def wait(self, action: Action, seconds: float | None) -> Event | None:
        """Wait until the attempt has ended, at most some seconds; None means that it is running."""
        _, worker, output = self._workers[action.id, action.attempt]
        follow_size(worker)
        deadline = None if seconds is None else time.monotonic() + seconds
        nap = _NAP
        while (goes_on := bool(worker.output) or not self._ended(worker)) or output.is_held:
            now = time.monotonic()
            if goes_on and deadline is not None and now >= deadline:
                return None
            if worker.asked is not None and now - worker.asked > _GRACE:
                self.cancel(action, at_once=True)
            left = _TURN if deadline is None else min(_TURN, max(0.0, deadline - now))
            # It has closed its streams, and is usually about to end.
            if not worker.output and not output.is_held:
                time.sleep(min(nap, left))
                nap = min(2 * nap, _TURN / 10)
            # A process that it has started may hold its output open.
            elif not self._read(worker, output, left) and self._ended(worker):
                break
        status = self._reap(worker, output)
        del self._workers[action.id, action.attempt]
        return _event(status, cancelled=worker.asked is not None)

    def cancel(self, action: Action, at_once: bool) -> None:
        """Ask the attempt and all its processes to end; kill them with `at_once`."""
        found = self._workers.get((action.id, action.attempt))
        if found is None:
            return
        worker = found[1]
        if worker.asked is None:
            worker.asked = time.monotonic()
        everything = descendants(worker.pid)
        number = signal.SIGKILL if at_once else signal.SIGTERM
        signal_group(worker.pid, number)
        for pid in everything:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def running(self) -> list[Action]:
        """Return the attempts that have not ended."""
        return [action for action, _, _ in self._workers.values()]

    def close(self) -> None:
        """Kill all remaining workers."""
        if self._spare is not None:
            dismiss(self._spare)
            self._spare = None
        for action, worker, output in list(self._workers.values()):
            self.cancel(action, at_once=True)
            self._reap(worker, output)
        self._workers.clear()

    def _read(self, worker: Worker, output: Output, seconds: float) -> bool:
        """Pass on output of the worker, and return whether there was output or the end of a stream.

        While output is held, nothing more is read, so that the worker waits, too. After it was
        asked to end, the reader is not waited for.
        """
        is_asked = worker.asked is not None
        if output.is_held:
            output.pass_on(seconds, leave=is_asked)
            return True
        ready, _, _ = select.select(list(worker.output), [], [], seconds)
        for descriptor in ready:
            data = _read(descriptor)
            if data:
                output.take(worker.output[descriptor], data)
            else:
                os.close(descriptor)
                del worker.output[descriptor]
        output.pass_on(0.0, leave=is_asked)
        return bool(ready)

    def _ended(self, worker: Worker) -> bool:
        return os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _reap(self, worker: Worker, output: Output) -> int:
        """Wait for the worker, and return its exit code.

        Its remaining processes are killed, and its remaining output is read.
        """
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        signal_group(worker.pid, signal.SIGKILL)  # Before its pid can be reused.
        _, status = os.waitpid(worker.pid, 0)
        deadline = time.monotonic() + _DRAIN
        while worker.output and time.monotonic() < deadline:
            self._read(worker, output, 0.05)
        for descriptor in (*worker.output, worker.control):
            os.close(descriptor)
        output.close()
        return os.waitstatus_to_exitcode(status)

    def _last_words(self, worker: Worker) -> str:
        words = b""
        for descriptor in worker.output:
            while data := _read(descriptor):
                words += data
        return words[-2000:].decode(errors="replace")


def _read(descriptor: int) -> bytes:
    """Return available bytes, or b"" at the end."""
    try:
        return os.read(descriptor, _CHUNK)
    except OSError as error:
        if error.errno != errno.EIO:  # Linux raises it for a terminal that no process has open.
            raise
        return b""


def _event(code: int, cancelled: bool) -> Event:
    if cancelled:
        return Event("cancelled", code)
    if code == -signal.SIGKILL or code == 137:
        return Event(
            "failed",
            137,
            "it was killed (SIGKILL), most likely because the machine ran out of memory",
            out_of_memory=True,
        )
    if code < 0:
        return Event(
            "failed", 128 - code, f"it ended with signal {-code} ({signal.strsignal(-code)})"
        )
    if code == NO_RESULT:
        return Event(
            "failed",
            code,
            "its result could not be written: is the disk full, or the run's directory gone?",
        )
    return Event(
        "succeeded" if code == 0 else "failed",
        code,
        "" if code == 0 else f"its process ended with exit code {code}",
    )
