"""Starting a worker's process. It imports next to nothing, so that a command can do it before anything else."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # As type checkers know it; `typing` itself is not worth its time here.
if TYPE_CHECKING:
    from .log import LogWriter

CONTROL = 3  # The file descriptor on which a worker listens.
_KILL = 9


class Worker:
    """A worker's process, which leads a process group: its pid, its output (stream by descriptor), and its pipe.

    `log` is what its output is written to, `held` what could not be passed on yet (stream and bytes); `asked` is the
    monotonic time at which it was asked to end.
    """

    def __init__(self, pid: int, control: int, output: dict[int, int]) -> None:
        self.pid, self.control, self.output = pid, control, output
        self.log: LogWriter | None = None
        self.held: list[tuple[int, bytes]] = []
        self.asked: float | None = None


def start_worker() -> Worker:
    """Start a worker that waits for an action. It costs little and may be started before it is known to be needed."""
    listen, control = os.pipe()
    out_read, out = os.pipe()
    err_read, err = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    descriptors = [listen, out, err, nothing]
    while min(descriptors[:3]) <= CONTROL:  # Placing one must not overwrite another.
        descriptors = [*map(os.dup, descriptors[:3]), *descriptors[3:], *descriptors[:3]]
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-u", "-P", "-c", "from flyte_build.runner.worker import main; main()"],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, nothing, 0),
            (os.POSIX_SPAWN_DUP2, descriptors[1], 1),
            (os.POSIX_SPAWN_DUP2, descriptors[2], 2),
            (os.POSIX_SPAWN_DUP2, descriptors[0], CONTROL),
        ],
        setpgroup=0,
    )
    for descriptor in descriptors:
        os.close(descriptor)
    return Worker(pid, control, {out_read: 1, err_read: 2})


def dismiss(worker: Worker) -> None:
    """Send away a worker that was not needed."""
    os.close(worker.control)
    for descriptor in worker.output:
        os.close(descriptor)
    signal_group(worker.pid, _KILL)
    os.waitpid(worker.pid, 0)


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group; one that has ended is fine."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies.
        return
