"""Attempts in workers: their orders, their output, their results, and their ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from flyte_build.cas.os_errors import storing
from flyte_build.runner.action import Action

from .output import Output
from .protocol import Waits

if TYPE_CHECKING:
    from .team import Team
    from .worker_process import WorkerProcess

# Seconds between two looks for the end of workers, where the system does not report it.
_TURN = 0.01
# Seconds to continue reading after a worker has ended, if another process holds its output open.
_DRAIN = 1.0
_CHUNK = 1 << 16
_FLOOD = 64  # Chunks of output that are read when an action of a kept worker has ended.


class Attempt:
    """An attempt in its worker, which is of a `team` if it is kept afterwards.

    `ended` is the monotonic time of the worker's end, or of the last output since.
    """

    def __init__(
        self, action: Action, worker: WorkerProcess, output: Output, team: Team | None
    ) -> None:
        self.action, self.worker, self.output, self.team = action, worker, output, team
        for descriptor in worker.output:
            os.set_blocking(descriptor, False)
        self.has_terminal = any(map(os.isatty, worker.output))
        self.sends, self.sent = worker.sends_result, bytearray()
        if self.sends:
            os.set_blocking(worker.control, False)
        self.ended: float | None = None
        self.is_asked = False

    def packages(self) -> list[str]:
        """Return the packages that the worker has imported, as it tells."""
        if self.sent.rstrip().endswith(b'"packages": []}'):
            return []
        try:
            return [str(name) for name in json.loads(bytes(self.sent))["packages"]]
        except (ValueError, LookupError, TypeError):  # It tells nothing, or was killed meanwhile.
            return []

    def waits(self) -> Waits:
        """Return its output, its result, the end of its worker, and the reader of held output."""
        read, write, seconds = list[int](), list[int](), None
        if self.sends:
            read.append(self.worker.control)
        if self.output.is_held:
            write.append(self.output.descriptor)
        else:
            read += self.worker.output
        if self.ended is None or not self._has_told():
            if (end := self.worker.end) is None:
                seconds = _TURN
            else:
                read.append(end)
        elif not self.output.is_held:
            seconds = max(0.0, self.ended + _DRAIN - time.monotonic())
        return Waits(read, write, seconds)

    @property
    def has_returned(self) -> bool:
        """Whether the result is there, and the worker waits for another order."""
        is_left = self.is_asked and self.worker.ends_when_asked
        return self.team is not None and self.sent.endswith(b"\n") and not is_left

    def pass_on(self) -> bool:
        """Receive the result, and pass on output. Returns whether there was output.

        While output is held, nothing more is read, so that the worker waits, too. After it was
        asked to end, the reader is not waited for.
        """
        while self.sends and (data := _read(self.worker.control)) is not None:
            self.sent += data
            self.sends = bool(data)
        has_output = pass_on(self.worker.output, self.output, leave=self.is_asked)
        if has_output and self.ended is not None:
            self.ended = time.monotonic()
        return has_output

    def is_over(self) -> bool:
        """Whether the attempt has ended, and all of its output was passed on."""
        if self.has_returned:  # What it has written is there, too.
            self._read_on()
            return not self.output.is_held and self._is_through()
        if self.ended is None:
            if not self.worker.has_ended():
                return False
            self.ended = time.monotonic()
            self.pass_on()
        if self.output.is_held or not self._has_told():
            return False
        if self.worker.output and time.monotonic() - self.ended <= _DRAIN:
            return False
        return self._is_through()

    def _read_on(self) -> None:
        for _ in range(_FLOOD):
            if not self.pass_on():
                return

    def _has_told(self) -> bool:
        """Whether it is known how the worker, which has ended, has ended."""
        return self.sent.endswith(b"\n") or self.worker.has_code()

    def _is_through(self) -> bool:
        self.output.end()
        self.output.pass_on(leave=self.is_asked)
        return not self.output.is_held

    def reap(self) -> int | None:
        """Return the exit code of the worker that has ended, and close everything."""
        for descriptor in (*self.worker.output, self.worker.control):
            os.close(descriptor)
        self.output.close()
        return self.worker.reap()

    def abandon(self) -> None:
        """Kill the worker, and pass on what it has written."""
        self.signal(signal.SIGKILL)
        self._read_on()
        self.output.end()
        self.output.pass_on(leave=True)
        self.output.close()
        self.worker.dismiss()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker and all its processes."""
        self.is_asked = True
        self.worker.signal(number)


def pass_on(descriptors: dict[int, int], output: Output, *, leave: bool) -> bool:
    """Pass on output that is there, and return whether there was any.

    `descriptors` to read from are mapped to streams; one whose end has come is closed and removed.
    While output is held, nothing more is read; see `Output.pass_on` for `leave`.
    """
    output.pass_on(leave)
    has_output = False
    for descriptor in () if output.is_held else list(descriptors):
        if (data := _read(descriptor)) is None:
            continue
        has_output = True
        if data:
            output.take(descriptors[descriptor], data)
        else:
            os.close(descriptor)
            del descriptors[descriptor]
    output.pass_on(leave)
    return has_output


def _read(descriptor: int) -> bytes | None:
    """Return available bytes, None if there are none yet, or b"" at the end."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return None
    except ConnectionError:  # The worker has ended without reading its order.
        return b""
    except OSError as error:
        if error.errno != errno.EIO:  # Linux raises it for a terminal that no process has open.
            raise
        return b""


def give(worker: WorkerProcess, action: Action, order: dict[str, Any]) -> None:
    """Give a worker its order, with the action itself if that is little.

    Raises `BrokenPipeError` if the worker has ended, and `StoreUnavailable`.
    """
    order["sends"] = worker.sends_result
    text = json.dumps({**order, "action": action.document()}) if worker.sends_result else ""
    if not text or len(text) > _CHUNK:  # A pipe takes no more before the worker reads.
        with storing("write an action"):
            action.write()
        text = json.dumps(order)
    os.set_blocking(worker.control, True)
    data = memoryview(text.encode() + b"\n")
    try:
        while data:
            data = data[os.write(worker.control, data) :]
    except BrokenPipeError:
        if not worker.sends_result:  # A fork that was killed before is lost, which is found later.
            raise


def last_words(worker: WorkerProcess) -> str:
    """Return what a worker has said that has ended, or is about to, and forget it."""
    words = b""
    for descriptor in worker.output:
        os.set_blocking(descriptor, True)
        while data := _read(descriptor):
            words += data
    worker.dismiss()
    return words[-2000:].decode(errors="replace")
